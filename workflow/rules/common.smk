# Names and functions that the rules share.
from itertools import chain
from os.path import dirname, exists, join
from shutil import which

from rglib.ablations import active, left_out, references
from rglib.extensions import is_own, module_of
from rglib.grids import targets
from rglib.models import SECTIONS_AT_TEST_TIME, SETTINGS_FILE
from rglib.provenance import RECORD_SUFFIX, code_hash
from rglib.seeds import copies, is_given, seeds_of
from rglib.validation import ROLE, learned_roles, sections_of
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


def CODE(*modules):
    """What these modules of rglib compute, as a parameter: changed code reruns its rules."""
    return [code_hash(module) for module in modules]


def definition_of(problem):
    """What a problem of one's own is, and its code; nothing of the paper's, whose name says it."""
    entry = config["problems"][problem]
    if "degradation" not in entry:
        return {}
    own = {key: entry[key] for key in ("degradation", "options") if key in entry}
    return own | {"code": code_hash(module_of(own["degradation"]))}


PROBLEMS = {problem: definition_of(problem) for problem in config["problems"]}
OWN_PROBLEMS = {id: definition for id, definition in PROBLEMS.items() if definition}
TABLES = [1, 2, 3] if OWN_PROBLEMS else [1, 2]

OWN_NETWORKS = [module_of(config["network"][role]) for role in "PG" if config["network"].get(role)]


def solver_code(section):
    """The module of a solver of one's own, if the section names one."""
    solver = section.get("solver", "")
    return [module_of(solver)] if is_own(solver) else []


OWN_CODE = [
    *OWN_NETWORKS,
    *solver_code(config["evaluation"]),
    *(module_of(own["degradation"]) for own in OWN_PROBLEMS.values()),
]
METHOD_CODE = [
    "rglib.evaluation",
    "rglib.networks",
    *OWN_NETWORKS,
    *solver_code(config["evaluation"]),
]
EVALUATION_CODE = ["rglib.evaluation", "rglib.networks", *OWN_CODE]


def training_code(stage):
    entry = VARIANTS["stages"][stage]
    objective = entry["objective"]
    own = module_of(objective) if is_own(objective) else f"rglib.objectives.{objective}"
    solver = solver_code(shared_with(entry).get("equilibrium", {}))
    return ["rglib.training", own, *OWN_NETWORKS, *solver]


def shared_with(entry):
    """The sections that a stage reads, each with the stage's own entries over it."""
    return {section: config[section] | entry.get(section, {}) for section in sections_of(entry)}


def MADE_WITH(*modules, stages):
    """The hashes of these modules and of those that train the stages, by name: for a result."""
    trained = [stage for stage in stages if not is_given(stage, config)]
    modules = {*modules, *chain(*map(training_code, trained))}
    return {module: code_hash(module) for module in sorted(modules)}


def recorded(*results):
    """Results, each with the record beside it."""
    return [path for result in results for path in (result, *records(result))]


def records(*results):
    return [f"{result}{RECORD_SUFFIX}" for result in results]


def predecessors(stage):
    """The stages whose networks a stage starts from, by role."""
    starts = {} if is_given(stage, config) else VARIANTS["stages"][stage]["init"]
    return {role: start for role, start in starts.items() if start in VARIANTS["stages"]}


def with_predecessors(stages):
    """Stages and all that they start from, each once, predecessors first."""
    ordered = {}
    for stage in stages:
        ordered |= dict.fromkeys(with_predecessors(predecessors(stage).values()))
        ordered[stage] = None
    return list(ordered)


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


def training_params(stage):
    """What a stage's numbers depend on, and no more: what changes here trains it again."""
    entry = VARIANTS["stages"][stage]
    sections = sections_of(entry)
    return {
        "stage": stage,
        "learned": learned_roles(entry),
        "starts": predecessors(stage),
        "entry": {
            key: entry[key] for key in entry if key not in ("log", "seed", "precision", *sections)
        },
        "shared": shared_with(entry),
        "network": config["network"],
        "precision": entry.get("precision", config["precision"]["train"]),
        "seed": entry.get("seed", config["seeds"][0]),
        "code": CODE(*training_code(stage)),
    }


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


def tuned_stages():
    methods = dict.fromkeys(map(tuned_method, TUNED))
    return with_predecessors(map(stage_of, methods))
