"""Write the table of the ablations as CSV and Markdown."""

import sys

from rglib.plan.ablations import references
from rglib.records.provenance import provenance_of
from rglib.report.ablations import ablation_table, ablations_markdown, descriptions
from rglib.report.evaluations import read_results, summarise, write_csv, write_text

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config, ablations = snakemake.config, snakemake.params.ablations
problems = list(config["problems"])
provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
results = read_results(
    snakemake.input.evaluations,
    methods=dict.fromkeys([*references(ablations), *ablations], config["seeds"][:1]),
    problems=problems,
)
table = ablation_table(summarise(results), ablations=ablations, problems=problems)
title = "Ablations: what the paper leaves open, read another way"
write_csv(
    table,
    snakemake.output.csv,
    title=title,
    provenance=provenance,
    descriptions=descriptions(problems),
)
labels = {method: config["methods"][method]["label"] for method in references(ablations)}
text = ablations_markdown(table, labels=labels, provenance=provenance)
write_text(text, snakemake.output.md, title=title, provenance=provenance)
