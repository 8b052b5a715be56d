"""What the paper says: its results and its claims, as data."""

from pathlib import Path

TABLES = Path(__file__).with_name("tables.csv")
CLAIMS = Path(__file__).with_name("claims.yaml")
