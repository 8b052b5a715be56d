"""Write and draw the gradients through each backward map beside the true one."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import write_csv
from rglib.report.figures import save
from rglib.report.fixed_points import GRADIENTS_TITLE, gradients_figure
from rglib.studies.gradients import COLUMNS

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

outputs, params = snakemake.output, snakemake.params
provenance = provenance_of(snakemake.input, params, snakemake.config)
table = pd.read_csv(snakemake.input.table)
write_csv(table, outputs.csv, title=GRADIENTS_TITLE, provenance=provenance, descriptions=COLUMNS)
figure = gradients_figure(table, plan=params.plan, provenance=provenance)
for path in (outputs.pdf, outputs.png):
    save(figure, path, title=GRADIENTS_TITLE, provenance=provenance)
