"""Check the paper's claims."""

import sys

import pandas as pd

from rglib.records.provenance import provenance_of
from rglib.report.claims import Numbers, check_claims, claims_markdown
from rglib.report.evaluations import read_results, summarise, write_csv, write_text

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")

provenance = provenance_of(snakemake.input, snakemake.params, snakemake.config)
results = read_results(
    [snakemake.input.results],
    methods=snakemake.params.seeds,
    problems=list(snakemake.config["problems"]),
)
convergence = pd.read_csv(snakemake.input.convergence)
checked = check_claims(Numbers.of_run(summarise(results), convergence))
title = "The paper's claims, checked on our numbers and on the paper's"
write_csv(checked, snakemake.output.csv, title=title, provenance=provenance)
text = claims_markdown(checked, provenance=provenance)
write_text(text, snakemake.output.md, title=title, provenance=provenance)
