"""Write bound.csv: both sides of Theorem 1, one row per method, problem and image."""

import sys

import pandas as pd

from rglib.bound_report import COLUMNS
from rglib.provenance import provenance_of
from rglib.results import write_csv

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

write_csv(
    pd.concat(map(pd.read_csv, snakemake.input.bounds), ignore_index=True)[list(COLUMNS)],
    snakemake.output.csv,
    title="Both sides of Theorem 1, one row per method, problem and image",
    provenance=provenance_of(snakemake.input, snakemake.params, snakemake.config),
    descriptions=COLUMNS,
)
