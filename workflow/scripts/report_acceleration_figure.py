"""Draw the PSNR over the calls of G, for both solvers."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.acceleration import acceleration_figure, of_both_solvers, title
from rglib.report.figures import save

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

methods, plan = snakemake.config["methods"], snakemake.params.acceleration
provenance = of_both_solvers(
    provenance_of(snakemake.input, snakemake.params, snakemake.config), steps=plan["steps"]
)
figure = acceleration_figure(
    pd.read_csv(snakemake.input.table),
    labels={method: methods[method]["label"] for method in snakemake.params.methods},
    crop=plan["crop"],
    provenance=provenance,
)
for path in (snakemake.output.pdf, snakemake.output.png):
    save(figure, path, title=title(plan["crop"]), provenance=provenance)
