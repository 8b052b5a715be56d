"""Make results by the function of rglib that the rule names, which is given what it names too."""

import sys
from importlib import import_module

from rglib.report.job import Job

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")


def named(reference):
    """What ``module:name`` stands for."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


job = Job(snakemake.input, snakemake.output, snakemake.params, snakemake.config)
given = {key: named(reference) for key, reference in snakemake.params.given.items()}
named(snakemake.params.make)(job, **given)
