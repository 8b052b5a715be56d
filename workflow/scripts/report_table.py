"""Write one of the paper's tables as CSV, Markdown and LaTeX."""

import sys

from rglib.records.provenance import provenance_of
from rglib.report.evaluations import (
    latex_table,
    markdown_table,
    read_results,
    summarise,
    table_columns,
    write_csv,
    write_text,
)

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config = snakemake.config
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
summary = summarise(
    read_results(
        [snakemake.input.results],
        methods=snakemake.params.seeds,
        problems=list(config["problems"]),
    )
)
table = int(snakemake.wildcards.table)
layout = {
    "table": table,
    "labels": {method: entry["label"] for method, entry in config["methods"].items()},
    "provenance": provenance,
}
title = f"Table {table}: means over images and seeds, ours beside the paper's"
write_csv(
    summary.loc[summary["table"] == table, table_columns(summary)],
    snakemake.output.csv,
    title=title,
    provenance=provenance,
)
for text, path in (
    (markdown_table(summary, **layout), snakemake.output.md),
    (latex_table(summary, **layout), snakemake.output.tex),
):
    write_text(text, path, title=title, provenance=provenance)
