"""What the paper says: its names, its constants, its results and its claims."""

from pathlib import Path

TABLES = Path(__file__).with_name("tables.csv")
CLAIMS = Path(__file__).with_name("claims.yaml")
