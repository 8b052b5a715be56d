"""Draw the study of the training at fixed points."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.figures import save
from rglib.report.fixed_points import TITLE, study_figure

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
table = pd.read_csv(snakemake.input.table)
figure = study_figure(table, plan=snakemake.params.plan, provenance=provenance)
for path in (snakemake.output.pdf, snakemake.output.png):
    save(figure, path, title=TITLE, provenance=provenance)
