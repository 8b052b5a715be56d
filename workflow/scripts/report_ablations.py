"""Write the table of the ablations as CSV and Markdown."""

import sys

from rglib.ablation_table import ablation_table, ablations_markdown, descriptions
from rglib.ablations import references
from rglib.provenance import read_provenance
from rglib.results import read_results, summarise, write_csv, write_text

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config, ablations = snakemake.config, snakemake.params.ablations
problems = list(config["problems"])
provenance = read_provenance(config, test_set=snakemake.input.test_set, cards=snakemake.input.cards)
results = read_results(
    snakemake.input.evaluations,
    methods=dict.fromkeys([*references(ablations), *ablations], config["seeds"][:1]),
    problems=problems,
)
table = ablation_table(summarise(results), ablations=ablations, problems=problems)
write_csv(
    table,
    snakemake.output.csv,
    title="Ablations: what the paper leaves open, read another way",
    provenance=provenance,
    descriptions=descriptions(problems),
)
labels = {method: config["methods"][method]["label"] for method in references(ablations)}
write_text(ablations_markdown(table, labels=labels, provenance=provenance), snakemake.output.md)
