# What the rules share: the plan of the configuration, the code of its jobs, and what only Snakemake
# can say.
from os import environ
from os.path import dirname, exists
from pathlib import Path
from shutil import which

from rglib.plan.plan import Plan
from rglib.records.made_with import Code, networks
from rglib.records.provenance import RECORD_SUFFIX, usable_processors

PLAN = Plan.of(config)
STAGES, RUN = PLAN.stages, PLAN.run
CODE = Code(PLAN, lambda name: Path(workflow.source_path(f"../scripts/{name}.py")))

# More jobs at a time than processors get in one another's way: on two, `--cores 8` is `--cores 2`.
PROCESSORS = usable_processors()
if (workflow._cores or 0) > PROCESSORS:
    workflow.register_resource("_cores", PROCESSORS)

# A job keeps the memory that its tensors free. By default glibc gives it back and the next tensor fetches it
# anew, page by page: a fifth of the time of a network on a CPU.
for threshold in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
    environ.setdefault(threshold, str(2**30))

# `auto` is settled where the jobs are planned: on a cluster, the node of a job that asked for no GPU
# may have one nevertheless.
ON_GPU = config["device"] == "cuda" or (
    config["device"] == "auto" and workflow.is_main_process and which("nvidia-smi")
)
GPUS_PER_JOB = 1 if ON_GPU else 0

# By its name alone where it lies in the working folder, so that a project that moved runs nothing again.
CITATION = "CITATION.cff" if exists("CITATION.cff") else workflow.source_path("../../CITATION.cff")

MODEL_CARDS = STAGES.cards(PLAN.stages_of(PLAN.methods))  # what the tables of one seed need


def answered(ask):
    """A function of wildcards that asks the plan; what this refuses is told without a traceback."""

    def answer(wildcards):
        try:
            return ask(wildcards)
        except ConfigurationError as refusal:
            raise WorkflowError(str(refusal)) from None

    return answer


def of_descent(pattern):
    """The files of the methods by gradient descent, for what makes no sense without one."""
    return answered(lambda wildcards: expand(pattern, method=PLAN.some_by_descent()))


def of_study(files):
    """The files of the study of training at fixed points, which must be configured."""
    return answered(lambda wildcards: files if PLAN.some_studied() else [])


def of_training(key):
    """What the plan says of the training of the stage that a wildcard names."""
    return lambda wildcards: STAGES.parameters(wildcards.trained)[key]


def recorded(*results):
    """Results, each with the record beside it."""
    return [path for result in results for path in (result, *records(result))]


def records(*results):
    return [f"{result}{RECORD_SUFFIX}" for result in results]


def trunk_of_lpips(wildcards):
    from rglib.integrations.lpips import LpipsError, trunk_file  # here, as PyTorch is slow

    try:
        trunk_file()
    except LpipsError as missing:
        raise WorkflowError(str(missing)) from None
    return []  # its checksum is known, and its time says nothing
