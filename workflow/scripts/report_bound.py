"""Write bound.csv: both sides of Theorem 1, one row per method, problem and image."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import write_csv
from rglib.report.theorem1 import COLUMNS

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

write_csv(
    pd.concat(map(pd.read_csv, snakemake.input.bounds), ignore_index=True)[list(COLUMNS)],
    snakemake.output.csv,
    title="Both sides of Theorem 1, one row per method, problem and image",
    provenance=provenance_of(snakemake.input, snakemake.params, snakemake.config),
    descriptions=COLUMNS,
)
