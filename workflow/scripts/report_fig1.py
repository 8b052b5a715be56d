"""Draw figure 1: crops of the restored images."""

import sys
from pathlib import Path

from rglib.figures import fig1, save
from rglib.provenance import read_provenance
from rglib.results import read_results

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config = snakemake.config
provenance = read_provenance(config, test_set=snakemake.input.test_set, cards=snakemake.input.cards)
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
for path in snakemake.output:
    save(figure, path, title="Figure 1: crops of the restored images", provenance=provenance)
