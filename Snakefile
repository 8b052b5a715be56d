# The benchmark of regularizing gradients: from data sets to tables. See README.md.
#   snakemake --cores 8 tables        snakemake results/fig2.pdf        snakemake --cores 8
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from rglib.plan.ablations import overlaid, without_nulls
from rglib.files import check_writable
from rglib.plan.check import ConfigurationError, check
from rglib.records.earlier import EARLIER, set_aside

min_version("9.14")


configfile: "config.yaml"


# What an overlay adds comes after what it lies over, in tables and figures too.
with open(workflow.source_path("config.yaml")) as base:  # also where this is a module of another
    ordered = without_nulls(overlaid(yaml.safe_load(base), config))
config.clear()
config.update(ordered)


with open(workflow.source_path("workflow/schemas/config.schema.yaml")) as schema:
    try:
        check(config, yaml.safe_load(schema))
    except ConfigurationError as mistakes:
        raise WorkflowError(f"the configuration has mistakes:\n{mistakes}") from None


onstart:
    try:
        check_writable(["results", RUN, "work/data"])
    except PermissionError as reason:
        raise WorkflowError(str(reason)) from None
    open_board()
    written = [path for job in workflow.dag.needrun_jobs() for path in job.output]
    if any(Path(path).parts[0] == "results" for path in written):
        for other, count in set_aside(Path("results"), run=config["run"]).items():
            print(
                f"results/ had {count} results of the run {other}: they are now in "
                f"results/{EARLIER}/{other}/, to make room for those of {config['run']}.",
                file=sys.stderr,
            )


wildcard_constraints:
    method="[^/]+",


# Local runs share the machine's GPUs job by job; on a cluster each job has its own.
resource_scopes:
    gpu="local",


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/bound.smk"
include: "workflow/rules/symmetry.smk"
include: "workflow/rules/lpips.smk"
include: "workflow/rules/acceleration.smk"
include: "workflow/rules/fixed_points.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/terminal.smk"


localrules:
    all,
    tables,
    figures,
    report,
    models,
    ablations,
    bound,
    symmetry,
    lpips,
    acceleration,
    fixed_points,
    tune,


rule tables:
    input:
        rules.settings.output,
        recorded("results/results.csv", "results/claims.csv", "results/claims.md"),
        recorded(*expand("results/table{n}.{format}", n=PLAN.tables, format=["csv", "md", "tex"])),


rule figures:
    input:
        recorded("results/convergence.csv"),
        recorded(*expand("results/fig{n}.{format}", n=[1, 2], format=["pdf", "png"])),


rule report:
    input:
        recorded("results/report.html"),


rule models:
    input:
        MODEL_CARDS,
        rules.settings.output,


rule ablations:
    input:
        recorded("results/ablations.csv", "results/ablations.md"),


rule bound:
    input:
        recorded(*expand("results/bound.{format}", format=["csv", "pdf", "png"])),


rule symmetry:
    input:
        recorded("results/symmetry.csv"),


rule lpips:
    input:
        recorded("results/lpips.csv", "results/lpips.md"),


rule acceleration:
    input:
        recorded(*expand("results/acceleration.{format}", format=["csv", "md", "pdf", "png"])),
        recorded("results/acceleration_training.csv"),


rule fixed_points:
    input:
        of_study(
            recorded(
                *expand("results/fixed_points.{format}", format=["csv", "md", "pdf", "png"]),
                *expand("results/gradients.{format}", format=["csv", "pdf", "png"]),
            )
        ),


rule tune:
    input:
        recorded("results/tuning.csv", "results/tuned.yaml"),


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
        rules.report.input,
