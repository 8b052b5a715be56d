"""Write and draw the gradients through each backward map beside the true one."""

import sys

import pandas as pd

from rglib.backward_study import COLUMNS
from rglib.figures import save
from rglib.fixed_point_report import GRADIENTS_TITLE, gradients_figure
from rglib.provenance import provenance_of
from rglib.results import write_csv

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

outputs, params = snakemake.output, snakemake.params
provenance = provenance_of(snakemake.input, params, snakemake.config)
table = pd.read_csv(snakemake.input.table)
write_csv(table, outputs.csv, title=GRADIENTS_TITLE, provenance=provenance, descriptions=COLUMNS)
figure = gradients_figure(table, plan=params.plan, provenance=provenance)
for path in (outputs.pdf, outputs.png):
    save(figure, path, title=GRADIENTS_TITLE, provenance=provenance)
