"""Write convergence.csv: mean PSNR over the iterations."""

import sys

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import convergence, read_curves, write_csv

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

curves = read_curves(
    snakemake.input.curves,
    methods=list(snakemake.config["methods"]),
    problems=list(snakemake.config["problems"]),
)
write_csv(
    convergence(curves),
    snakemake.output.csv,
    title="PSNR over the iterations, mean over the images",
    provenance=provenance_of(snakemake.input, snakemake.params, snakemake.config),
)
