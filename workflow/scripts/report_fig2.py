"""Draw figure 2: mean PSNR over the iterations of gradient descent."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.figures import fig2, save

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

methods = snakemake.config["methods"]
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
figure = fig2(
    pd.read_csv(snakemake.input.convergence),
    labels={method: methods[method]["label"] for method in snakemake.params.methods},
    provenance=provenance,
)
for path in (snakemake.output.pdf, snakemake.output.png):
    save(figure, path, title="Figure 2: PSNR over the iterations", provenance=provenance)
