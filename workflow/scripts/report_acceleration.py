"""Write the tables of the accelerated solver as CSV, and their summary in Markdown."""

import sys

import pandas as pd

from rglib.plan.acceleration import SOLVERS, copy_name
from rglib.records.provenance import provenance_of
from rglib.report.acceleration import (
    acceleration_markdown,
    acceleration_table,
    adam_steps,
    descriptions,
    of_both_solvers,
    title,
)
from rglib.report.evaluations import read_curves, read_results, write_csv, write_text
from rglib.studies.acceleration import CALLS_BEFORE, COLUMNS

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

config, outputs, methods = snakemake.config, snakemake.output, snakemake.params.methods
plan, problems = snakemake.params.acceleration, list(config["problems"])
provenance = of_both_solvers(
    provenance_of(snakemake.input, snakemake.params, config), steps=plan["steps"]
)
copies = [copy_name(method, solver) for method in methods for solver in SOLVERS]
curves = read_curves(snakemake.input.curves, methods=copies, problems=problems)
seeds = {copy: config["seeds"][:1] for copy in copies}
results = read_results(snakemake.input.results, methods=seeds, problems=problems)
table = acceleration_table(
    curves, results, calls_before=CALLS_BEFORE, methods=methods, problems=problems
)
write_csv(
    table,
    outputs.csv,
    title=title(plan["crop"]),
    provenance=provenance,
    descriptions=descriptions(adam_steps(table)),
)
training = pd.concat(map(pd.read_csv, snakemake.input.training), ignore_index=True)
trained_on = ", ".join(config["data"]["train"])
write_csv(
    training[list(COLUMNS)],
    outputs.training,
    title=f"The way to x_g in training, semi_implicit beside adam, crops of {trained_on}",
    provenance=provenance,
    descriptions=COLUMNS,
)
text = acceleration_markdown(
    table,
    training,
    labels={method: config["methods"][method]["label"] for method in methods},
    crop=plan["crop"],
    trained_on=trained_on,
    provenance=provenance,
)
write_text(text, outputs.md, title=title(plan["crop"]), provenance=provenance)
