# Names and functions that the rules share.
from functools import cache
from os.path import dirname, exists, isfile, join
from pathlib import Path
from shutil import which

from rglib import plans
from rglib.ablations import active, left_out, references
from rglib.datasets import DOWNLOADS, mirror_folders
from rglib.definitions import code_hash
from rglib.extensions import is_own
from rglib.grids import targets
from rglib.listing import checksums, parameter
from rglib.models import ROLE, SECTIONS_AT_TEST_TIME, SETTINGS_FILE
from rglib.provenance import RECORD_SUFFIX
from rglib.seeds import copies, is_given, seeds_of
from rglib.validation import learned_roles
from rglib.variants import expanded

RUN = f"work/{config['run']}"
METHODS = list(config["methods"])
SEEDS = {method: seeds_of(method, config) for method in METHODS}
COPIES = copies(config)  # of the methods, one for each seed
VARIANTS = expanded(config)  # the stages and methods of all seeds and ablations
# `auto` is settled where the jobs are planned: on a cluster, the node of a job that asked for no GPU
# may have one nevertheless.
ON_GPU = config["device"] == "cuda" or (
    config["device"] == "auto" and workflow.is_main_process and which("nvidia-smi")
)
GPUS_PER_JOB = 1 if ON_GPU else 0

SETTINGS = {"gradient_descent": "problems", "pnp_admm": "admm"}  # the section each one reads


hashed = cache(code_hash)  # of the same few scripts, for many jobs


# By its name alone where it lies in the working folder, so that a project that moved runs nothing again.
CITATION = "CITATION.cff" if exists("CITATION.cff") else workflow.source_path("../../CITATION.cff")


def SCRIPT(name, *choices):
    """The code of a script, with what `one_of` says of it and with code of one's own, by its names.

    As a parameter, changed code reruns its rule.
    """
    entries = " ".join([f"workflow/scripts/{name}.py", *choices])
    return {entries: hashed(entries, script=Path(workflow.source_path(f"../scripts/{name}.py")))}


def one_of(table, *names):
    """Of this dict in rglib only these names are asked for; code of one's own is in none."""
    keys = {name for name in names if name and not is_own(name)}
    return f"{table}[{','.join(sorted(keys))}]"


def contents(files):
    """The checksums of files, as a parameter: another file is noticed whatever its time says."""
    return [digest for _, digest in checksums(map(Path, files), DOWNLOADS)]


def files_in(options):
    """The files that options of one's own name."""
    return [value for value in options.values() if isinstance(value, str) and isfile(value)]


def definition_of(problem):
    """What a problem of one's own is, and its code; nothing of the paper's, whose name says it."""
    entry = config["problems"][problem]
    if "degradation" not in entry:
        return {}
    own = {key: entry[key] for key in ("degradation", "options") if key in entry}
    files = contents(files_in(own.get("options", {})))
    return own | {"code": {own["degradation"]: hashed(own["degradation"])}, "files": files}


PROBLEMS = {problem: definition_of(problem) for problem in config["problems"]}
OWN_PROBLEMS = {id: definition for id, definition in PROBLEMS.items() if definition}
TABLES = [1, 2, 3] if OWN_PROBLEMS else [1, 2]


def networks_code(roles):
    """The networks of these roles, DRUNets or of one's own."""
    own = [config["network"][role] for role in roles if config["network"].get(role)]
    drunets = [role for role in roles if not config["network"].get(role)]
    return [one_of("rglib.networks:NETWORKS", *drunets), *own]


def solver_code(name):
    """A solver, as a choice or as code of one's own; None where there is none."""
    own = [name] if name and is_own(name) else []
    return [one_of("rglib.fixed_point:SOLVERS", name), *own]


def training_code(stage, schedules=()):
    """The code that trains a stage: what `train.py` reaches by this stage's entry.

    ``schedules`` are those of the learning rate that a script takes whatever the entry says.
    """
    entry = VARIANTS["stages"][stage]
    objective, schedule = entry["objective"], entry["optimiser"]["schedule"]
    taken = [key for key in schedule if schedule[key] is not None]
    equilibrium = plans.shared_with(entry, config).get("equilibrium", {})
    solver, backward_map = equilibrium.get("solver"), equilibrium.get("backward_map")
    by_name = [
        *solver_code(solver),
        one_of("rglib.objectives.equilibrium:BACKWARD_MAPS", backward_map),
    ]
    if is_own(objective):  # it may take any of these, whatever the configuration says
        by_name = [objective, *([solver] if solver and is_own(solver) else [])]
    return [
        one_of("rglib.configuration:OBJECTIVES", objective),
        one_of("rglib.configuration:SCHEDULES", *taken, *schedules),
        *networks_code(entry["init"]),
        *by_name,
    ]


def restoring_code(algorithm, solver):
    """The code that restores by an algorithm, and by a solver where it uses one."""
    return [
        one_of("rglib.evaluation:RESTORERS", algorithm),
        *solver_code(solver if algorithm == "gradient_descent" else None),
        *networks_code([ROLE[algorithm]]),
    ]


def evaluation_code(method):
    entry = VARIANTS["methods"][method]
    own = entry.get("evaluation", {})
    return restoring_code(entry["algorithm"], (config["evaluation"] | own)["solver"])


def MADE_WITH(script, *, stages, methods=(), also=()):
    """The code of a script and all that its result was made with, by name.

    That which trained or took the stages, evaluated the methods, and ``also`` what `SCRIPT` says.
    """
    trained = [stage for stage in stages if not is_given(stage, config)]
    data = ["dataset", "store"] if trained else []
    made = [
        SCRIPT(script),
        *also,
        *map(SCRIPT, ["test_set", *data]),
        *(own["code"] for own in OWN_PROBLEMS.values()),
        *(SCRIPT("evaluate", *evaluation_code(method)) for method in methods),
        *(SCRIPT("train", *training_code(stage)) for stage in trained),
    ]
    return {entries: digest for one in made for entries, digest in one.items()}


def listed(manifest, dataset):
    """What a data set's manifest was made with while it is up to date, else something else."""
    return parameter(
        Path(manifest),
        dataset,
        mirrors=mirror_folders(config["mirrors"]),
        data_dir=DOWNLOADS,
    )


def recorded(*results):
    """Results, each with the record beside it."""
    return [path for result in results for path in (result, *records(result))]


def records(*results):
    return [f"{result}{RECORD_SUFFIX}" for result in results]


def predecessors(stage):
    """The stages whose networks a stage starts from, by role."""
    return plans.predecessors(stage, VARIANTS)


def with_predecessors(stages):
    """Stages and all that they start from, each once, predecessors first."""
    return plans.with_predecessors(stages, VARIANTS)


def weights_of(stage, roles):
    return {role: f"{RUN}/models/{stage}/{role}.safetensors" for role in roles}


def given_files(stage):
    """The local files that a given stage is taken from, so that another file is noticed.

    Its weights, and the card beside them. Without those that are not there, which the rule itself
    says more about.
    """
    files = [source.get("file") for source in config["weights"][stage].values()]
    cards = [join(dirname(file), f"{stage}.card.json") for file in files if file]
    return [file for file in dict.fromkeys([*files, *cards]) if file and exists(file)]


def card_of(stage):
    return f"{RUN}/models/{stage}/card.json"


# The stages whose weights are published: those that `weights` names and that are trained.
TO_SHIP = [stage for stage in config["weights"] if not is_given(stage, config)]


def on_the_way(stage):
    """The stages that a stage to ship was trained from, if neither given nor shipped themselves."""
    ordered = {}
    for start in predecessors(stage).values():
        if start not in TO_SHIP and not is_given(start, config):
            ordered |= dict.fromkeys([*on_the_way(start), start])
    return list(ordered)


def published(stage):
    """The files of a trained stage: its card, then its weights by role."""
    roles = config["weights"][stage] or learned_roles(config["stages"][stage])
    return [card_of(stage), *weights_of(stage, roles).values()]


def training_inputs(stage):
    """The stores, and the networks that a stage starts from."""
    starts = predecessors(stage).items()
    return {
        "train": f"{RUN}/store/train/store.json",
        "validation": f"{RUN}/store/validation/store.json",
        **{f"start_{role}": weights_of(start, [role])[role] for role, start in starts},
    }


def training_params(stage, script="train", schedules=()):
    """What a stage's numbers depend on, and no more: what changes here trains it again."""
    return {
        **plans.training_parameters(stage, VARIANTS),
        "files": contents(files_in(VARIANTS["stages"][stage]["options"])),
        "code": SCRIPT(script, *training_code(stage, schedules)),
    }


def of_study(key):
    """A parameter of the training of a variant of the study of fixed points."""
    return lambda wildcards: training_params(wildcards.trained)[key]


def study_code(trained):
    """The code that trains and measures a variant of the study of fixed points."""
    zeros = restoring_code("gradient_descent", config["evaluation"]["solver"])
    return SCRIPT("study_fixed_points", *training_code(trained), *zeros)


def processes_of(stage):
    """How many processes train a stage: one where it takes the whole batch to judge it."""
    shared = training_params(stage)["shared"]
    shareable = shared.get("equilibrium", {}).get("per_image", True)
    return config["processes"] if shareable else 1


def stage_of(method):
    return VARIANTS["methods"][method]["stage"]


STAGES = with_predecessors(map(stage_of, METHODS))  # what the tables need
MODEL_CARDS = [card_of(stage) for stage in STAGES]
ALL_STAGES = with_predecessors(map(stage_of, VARIANTS["methods"]))
TRAINED = [stage for stage in ALL_STAGES if not is_given(stage, config)]
GIVEN = [stage for stage in ALL_STAGES if is_given(stage, config)]


def named(wildcards):
    """The method and the seed behind the name of a copy; an ablation is of the first seed."""
    return COPIES.get(wildcards.method, (wildcards.method, config["seeds"][0]))


def algorithm(wildcards):
    return VARIANTS["methods"][wildcards.method]["algorithm"]


def network_of(wildcards):
    return weights_of(stage_of(wildcards.method), [ROLE[algorithm(wildcards)]]).values()


def settings_of(wildcards):
    """The sections that this method's numbers depend on, and no others."""
    section = SETTINGS[algorithm(wildcards)]
    own = VARIANTS["methods"][wildcards.method].get("evaluation", {})
    return {"evaluation": config["evaluation"] | own, section: config[section]}


GD_METHODS = [m for m in METHODS if config["methods"][m]["algorithm"] == "gradient_descent"]


def of_descent(pattern):
    """The files of the methods by gradient descent, for what makes no sense without one."""

    def files(wildcards):
        if not GD_METHODS:
            raise WorkflowError("methods: none of them is by gradient_descent, which this needs")
        return expand(pattern, method=GD_METHODS)

    return files


ABLATIONS = active(config)
COMPARED = [*references(ABLATIONS), *ABLATIONS]
COMPARED_STAGES = with_predecessors(map(stage_of, COMPARED))


def ablation_evaluations(wildcards):
    """Of the ablations and what they change, if all of these are configured."""
    if unknown := left_out(config):
        raise WorkflowError(
            f"ablations.{unknown[0]}.method: {config['ablations'][unknown[0]]['method']!r} is "
            f"none of the methods: {', '.join(METHODS)}"
        )
    return expand(f"{RUN}/evaluation/{{method}}.csv", method=COMPARED)


def learns_P(stage):
    given = is_given(stage, config)
    return "P" in (config["weights"][stage] if given else learned_roles(config["stages"][stage]))


def denoiser_of(wildcards):
    """The stage whose P Theorem 1 has beside a method's G: the same one where it learns P."""
    stage = stage_of(wildcards.method)
    return stage if learns_P(stage) else config["bound"]["denoiser"]


TUNED = targets(config)  # what has open settings, with the algorithm of each


def tuned_method(target):
    algorithm = TUNED[target]
    method = config["tuning"]["methods"][algorithm]
    if method not in METHODS:
        raise WorkflowError(
            f"tuning.methods.{algorithm}: {method!r} is none of the methods: {', '.join(METHODS)}"
        )
    return method


def tuned_weights(wildcards):
    role = ROLE[TUNED[wildcards.target]]
    return weights_of(stage_of(tuned_method(wildcards.target)), [role])[role]


def tuning_code(target):
    return SCRIPT("tune", *restoring_code(TUNED[target], config["evaluation"]["solver"]))


def tuned_stages():
    methods = dict.fromkeys(map(tuned_method, TUNED))
    return with_predecessors(map(stage_of, methods))
