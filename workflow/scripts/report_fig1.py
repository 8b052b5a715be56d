"""Draw figure 1: crops of the restored images."""

import sys
from pathlib import Path

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import read_results
from rglib.report.figures import fig1, save

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config = snakemake.config
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
figure = fig1(
    read_results(
        [snakemake.input.results],
        methods=snakemake.params.seeds,
        problems=list(config["problems"]),
    ),
    images=Path(snakemake.params.folder),
    labels={method: config["methods"][method]["label"] for method in snakemake.params.methods},
    provenance=provenance,
)
for path in (snakemake.output.pdf, snakemake.output.png):
    save(figure, path, title="Figure 1: crops of the restored images", provenance=provenance)
