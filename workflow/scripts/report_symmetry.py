"""Write symmetry.csv: is G a gradient, one row per method, problem and image."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import write_csv
from rglib.studies.symmetry import COLUMNS

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

write_csv(
    pd.concat(map(pd.read_csv, snakemake.input.tables), ignore_index=True)[list(COLUMNS)],
    snakemake.output.csv,
    title="How far from symmetric the Jacobian of G is, and the zeros from many starts",
    provenance=provenance_of(snakemake.input, snakemake.params, snakemake.config),
    descriptions=COLUMNS,
)
