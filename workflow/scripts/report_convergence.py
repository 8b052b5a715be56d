"""Write convergence.csv: mean PSNR over the iterations."""

import sys

from rglib.provenance import read_provenance
from rglib.results import convergence, read_curves, write_csv

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
    provenance=read_provenance(
        snakemake.config, test_set=snakemake.input.test_set, cards=snakemake.input.cards
    ),
)
