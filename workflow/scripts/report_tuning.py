"""Write what was tried out as CSV, and the best of it as an overlay of the configuration."""

import sys
from pathlib import Path

from rglib.plan.open_settings import overlay_text
from rglib.records.provenance import provenance_of
from rglib.report.evaluations import write_csv, write_text
from rglib.studies.tuning import COLUMNS, read_tables

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

params = snakemake.params
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
table = read_tables([Path(path) for path in snakemake.input.tables])
title = f"Tuned on centre crops, {params.crop} pixels, of {params.images} images of {params.data}"
write_csv(table, snakemake.output.csv, title=title, provenance=provenance, descriptions=COLUMNS)
overlay = overlay_text(table, [f"{title}.", *provenance.lines()])
write_text(overlay, snakemake.output.overlay, title=title, provenance=provenance)
