"""Draw both sides of Theorem 1 against each other."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.figures import save
from rglib.report.theorem1 import bound_figure

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

methods = snakemake.config["methods"]
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
figure = bound_figure(
    pd.read_csv(snakemake.input.bound),
    labels={method: methods[method]["label"] for method in snakemake.params.methods},
    provenance=provenance,
)
for path in (snakemake.output.pdf, snakemake.output.png):
    save(figure, path, title="Theorem 1 on the trained networks", provenance=provenance)
