"""Write results.csv: one row per method, problem and image."""

import sys

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import read_results, write_csv

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

results = read_results(
    snakemake.input.evaluations,
    methods=snakemake.params.seeds,
    problems=list(snakemake.config["problems"]),
)
write_csv(
    results,
    snakemake.output.csv,
    title="Restorations, one row per method, problem and image",
    provenance=provenance_of(snakemake.input, snakemake.params, snakemake.config),
)
