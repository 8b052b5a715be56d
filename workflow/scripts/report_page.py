"""Write report.html: everything on one page."""

import sys
from pathlib import Path

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import read_results
from rglib.report.page.page import Material, write_page

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config, params = snakemake.config, snakemake.params
material = Material(
    results=read_results(
        [snakemake.input.results], methods=params.seeds, problems=list(config["problems"])
    ),
    convergence=pd.read_csv(snakemake.input.convergence),
    claims=pd.read_csv(snakemake.input.claims),
    labels={method: entry["label"] for method, entry in config["methods"].items()},
    descending=tuple(params.descending),
    images=Path(params.folder),
    histories={stage: Path(path) for stage, path in params.histories.items()},
    citation=Path(snakemake.input.citation),
    provenance=provenance_of(snakemake.input, params, config),
)
write_page(material, Path(snakemake.output.html))
