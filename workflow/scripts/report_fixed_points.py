"""Write the study of the training at fixed points as CSV and Markdown."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import write_csv, write_text
from rglib.report.fixed_points import TITLE, study_markdown
from rglib.studies.fixed_points import COLUMNS

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

outputs, params = snakemake.output, snakemake.params
provenance = provenance_of(snakemake.input, params, snakemake.config)
table = pd.concat(map(pd.read_csv, snakemake.input.tables), ignore_index=True)[list(COLUMNS)]
write_csv(table, outputs.csv, title=TITLE, provenance=provenance, descriptions=COLUMNS)
text = study_markdown(table, plan=params.plan, provenance=provenance)
write_text(text, outputs.md, title=TITLE, provenance=provenance)
