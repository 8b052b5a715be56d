"""The configuration checked before anything runs: by its schema, then between its entries.

Nothing here imports PyTorch, so that a mistake shows within a second.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from os.path import isfile
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from rglib.data.datasets import CATALOGUE, FOLDER_PREFIX, printable
from rglib.extensions import ExtensionError, closest, is_own, load, make, parameters
from rglib.plan.ablations import active, including_ablations, overlaid
from rglib.plan.roles import INITIALISATIONS, OBJECTIVES, ROLE, ROLES, SECTIONS, start_of

Config = Mapping[str, Any]
Key = tuple[str | int, ...]  # the way from the top to an entry

SMALLEST_BLURRED = 32  # pixels of a crop: the blur trained on has 25x25 taps
KEEPING = ("restarted", "fields", "state")  # of rglib.core.fixed_point.KeepableSolver

TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}

_brief = reprlib.Repr()  # nested values are cut short, the names of files are not
_brief.maxstring = 200


class ConfigurationError(ValueError):
    """The configuration has mistakes; the message has a line for each."""


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one entry of the configuration, and what is allowed there."""

    key: Key
    text: str

    def __str__(self) -> str:
        return f"{dotted(self.key)}: {self.text}"


def check(config: Config, schema: Mapping[str, Any]) -> None:
    """Check the merged configuration against its JSON schema, and its entries with one another.

    What lies between entries is checked once these are well-formed by themselves, and the stages
    and methods that the ablations make once all else is right.

    Raises:
        ConfigurationError: one line for each mistake, with the entry's dotted path and what is
            allowed there.
    """
    mistakes = _mistakes(config, schema) or [
        *_in_ablations(config, schema),
        *_in_variants(config, schema),
    ]
    if mistakes:
        raise ConfigurationError("\n".join(dict.fromkeys(map(str, mistakes))))


def _mistakes(config: Config, schema: Mapping[str, Any]) -> list[Mistake]:
    mistakes = list(_by_schema(config, schema))
    if not mistakes:
        mistakes += _own_code(config)
        if mistakes:  # what the other checks ask of it cannot be answered
            return mistakes
    malformed = {mistake.key[:1] for mistake in mistakes}
    for between, sections in CHECKS:
        if malformed.isdisjoint([(), *((section,) for section in sections)]):
            mistakes += between(config)
    return mistakes


def _in_ablations(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with the stages and methods they make, told as a mistake of the ablation."""
    for name in active(config):
        if name in config["stages"] or name in config["methods"]:
            yield _refused(("ablations", name), name, "a name that no stage and no method has")
    for mistake in _mistakes(including_ablations(config), schema):
        section, *rest = mistake.key
        if section in ("stages", "methods"):
            ablation, *place = rest
            place = ["stage", *place] if section == "stages" else place
            yield Mistake(("ablations", ablation, *place), mistake.text)
        else:  # what an ablation needs of another section
            text = mistake.text
            for name in active(config):
                text = text.replace(f" stages.{name}.", f" ablations.{name}.stage.")
            yield Mistake(mistake.key, text)


def _in_variants(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with the study of the training at fixed points, and with its stages."""
    plan = config.get("fixed_points")
    if plan is None:
        return
    able = _learning(config, "G")
    named = {("stage",): plan["stage"], ("gradients", "stage"): plan["gradients"]["stage"]}
    for key, stage in named.items():
        if stage not in able:
            allowed = f"a stage that learns G: {', '.join(able)}{closest(stage, able)}"
            yield _refused(("fixed_points", *key), stage, allowed)
            return
    base = config["stages"][plan["stage"]]
    for name, variant in plan["variants"].items():
        if name in config["stages"]:
            yield _refused(("fixed_points", "variants", name), name, "a name that no stage has")
            return
        stages = config["stages"] | {name: overlaid(base, variant.get("stage", {}))}
        for mistake in _mistakes({**config, "stages": stages}, schema):
            place = ("fixed_points", "variants", name, "stage", *mistake.key[2:])
            yield Mistake(place, mistake.text)


def dotted(key: Key) -> str:
    """``stages.rg1.optimiser.lr``, ``network.widths[2]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".") or "the configuration"


# --- one entry by itself --------------------------------------------------------------------------


def _is_mapping(_: Any, value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema alone takes 3.0 for an integer and NaN for a number below every bound, and stumbles
# over keys that YAML reads as numbers or truth values.
_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"object": _is_mapping, "integer": _is_integer, "number": _is_number}
    ),
)


def _by_schema(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: dotted(_key(e)))
    mistyped = {_key(error) for error in errors if error.validator == "type"}
    for error in errors:
        if error.validator == "type" or _key(error) not in mistyped:
            yield from _explain(error, schema)


def _key(error: ValidationError) -> Key:
    return tuple(error.absolute_path)


def _explain(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    key, value = _key(error), error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for name in value:
            if name not in known:
                yield _unknown((*key, name), known)
    elif error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        if "degradation" in missing:  # neither a problem of the paper nor one of your own
            known = schema["properties"]["problems"]["properties"]
            yield _unknown(key, [*known, "or a problem of your own, with `degradation`"])
        else:
            yield from (Mistake((*key, name), "is missing; it has no default") for name in missing)
    elif "propertyNames" in error.absolute_schema_path:
        yield _refused((*key, value), value, _allowed(error))
    else:
        yield _refused(key, value, _allowed(error))


def _allowed(error: ValidationError) -> str:
    limit = error.validator_value
    if error.validator in BOUNDS:
        return f"{BOUNDS[error.validator]} {limit}"
    if error.validator == "enum":
        return f"one of {', '.join(limit)}"
    if error.validator == "uniqueItems":
        return "a list without repetitions"
    if error.validator == "type":
        types = [limit] if isinstance(limit, str) else limit
        return " or ".join(TYPES[name] for name in types) + _hint(error.instance, types)
    return str(error.schema["title"])


def _hint(value: Any, types: list[str]) -> str:
    if isinstance(value, Mapping) and "object" in types:
        return " whose keys are text: put numbers, yes, no, on, off and null in quotes"
    if isinstance(value, str) and {"integer", "number"} & set(types) and _reads_as_number(value):
        return ", without quotes, and with dot and sign if it has an exponent: 1.0e-5"
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refused(key: Key, value: Any, allowed: str) -> Mistake:
    return Mistake(key, f"{_brief.repr(value)} is not allowed; must be {allowed}")


def _unknown(key: Key, known: Iterable[str]) -> Mistake:
    return Mistake(key, f"unknown key{closest(str(key[-1]), known)} (allowed: {', '.join(known)})")


# --- code of your own ----------------------------------------------------------------------------


def _own_code(config: Config) -> Iterator[Mistake]:
    """What of `rglib.extensions` cannot be loaded, or made with its options."""
    for name, stage in config["stages"].items():
        if is_own(stage["objective"]):
            yield from _own_objective(("stages", name), stage, config)
    for name, problem in config["problems"].items():
        if "degradation" in problem:
            yield from _own_problem(("problems", name), problem, config)
    for role in ROLES:
        if reference := config["network"].get(role):
            yield from _unloadable(("network", role), reference)
    for key, name in named_solvers(config):
        if is_own(name):
            yield from _unloadable(key, name)


def named_solvers(config: Config) -> Iterator[tuple[Key, str]]:
    """The solvers of the configuration and of its stages."""
    for section in ("equilibrium", "evaluation"):
        yield (section, "solver"), config[section]["solver"]
    for name, stage in config["stages"].items():
        if "solver" in stage.get("equilibrium", {}):
            yield ("stages", name, "equilibrium", "solver"), stage["equilibrium"]["solver"]


def _own_objective(key: Key, stage: Config, config: Config) -> Iterator[Mistake]:
    reference = stage["objective"]
    if mistakes := list(_unloadable((*key, "objective"), reference)):
        yield from mistakes
        return
    roles = [*_declared(reference, "learns"), *_declared(reference, "uses")]
    if not _declared(reference, "learns") or not set(roles) <= set(ROLES):
        text = f"{reference} must have `learns`, and may have `uses`: a tuple of P, G or both"
        yield Mistake((*key, "objective"), text)
    shared = {section: config[section] | stage.get(section, {}) for section in sections_of(stage)}
    try:
        make(reference, stage["options"], given=shared)
    except ExtensionError as error:
        yield Mistake((*key, "options"), str(error))


def _own_problem(key: Key, problem: Config, config: Config) -> Iterator[Mistake]:
    reference = problem["degradation"]
    if mistakes := list(_unloadable((*key, "degradation"), reference)):
        yield from mistakes
        return
    try:
        task = getattr(make(reference, problem.get("options", {}), given={}), "task", None)
    except ExtensionError as error:
        yield Mistake((*key, "options"), str(error))
        return
    tasks = [name for name, entry in config["admm"].items() if isinstance(entry, Mapping)]
    if task not in tasks:
        text = f"{reference} must have a `task`, one of {', '.join(tasks)}; it is {task!r}"
        yield Mistake((*key, "degradation"), text)


def _unloadable(key: Key, reference: str) -> Iterator[Mistake]:
    try:
        load(reference)
    except ExtensionError as error:
        yield Mistake(key, str(error))


def _declared(reference: str, what: str) -> tuple[str, ...]:
    """What the class of an objective says in ``learns`` or ``uses``, the same for any options."""
    value = getattr(load(reference), what, ())
    return tuple(value) if isinstance(value, tuple | list) else ()


# --- between entries ------------------------------------------------------------------------------


def learned_roles(stage: Config) -> list[str]:
    """The roles that a stage (its entry under ``stages``) trains: `learns` of its objective."""
    if is_own(stage["objective"]):
        return list(_declared(stage["objective"], "learns"))
    return list(OBJECTIVES[stage["objective"]].learned(stage["options"]))


def _used_roles(stage: Config) -> list[str]:
    """The roles that a stage needs and leaves as they are: `uses` of its objective."""
    if is_own(stage["objective"]):
        return list(_declared(stage["objective"], "uses"))
    return list(OBJECTIVES[stage["objective"]].uses)


def sections_of(stage: Config) -> list[str]:
    """The sections that a stage's objective reads beside its options.

    An objective of your own reads those that it has parameters for.
    """
    if is_own(stage["objective"]):
        return sorted(parameters(load(stage["objective"])) & set(SECTIONS))
    return list(OBJECTIVES[stage["objective"]].sections)


def _learning(config: Config, role: str) -> list[str]:
    return [name for name, stage in config["stages"].items() if role in learned_roles(stage)]


def _networks_P(config: Config) -> list[str]:
    """What a G may start from beside another G."""
    return [f"{stage}.P" for stage in _learning(config, "P")]


def _given(config: Config) -> Config:
    """The weights that are used: none with ``init: scratch``."""
    if config["init"] != "weights":
        return {}
    return {stage: sources for stage, sources in config["weights"].items() if sources is not None}


def _methods(config: Config) -> Iterator[Mistake]:
    for name, method in config["methods"].items():
        role, stage = ROLE[method["algorithm"]], method["stage"]
        able = _learning(config, role)
        if stage not in able:
            who = f"a stage that learns {role}, which {method['algorithm']} needs"
            allowed = f"{who}: {', '.join(able)}{closest(stage, able)}"
            yield _refused(("methods", name, "stage"), stage, allowed)


def _tuned_methods(config: Config) -> Iterator[Mistake]:
    """A method that is not configured is left to the target `tune`: few want it."""
    for algorithm, method in config["tuning"]["methods"].items():
        able = [m for m, entry in config["methods"].items() if entry["algorithm"] == algorithm]
        if method in config["methods"] and method not in able:
            allowed = f"a method with algorithm {algorithm}: {', '.join(able)}"
            key = ("tuning", "methods", algorithm)
            yield _refused(key, method, allowed + closest(method, able))


def _denoiser_of_bound(config: Config) -> Iterator[Mistake]:
    stage, able = config["bound"]["denoiser"], _learning(config, "P")
    if stage not in able:
        allowed = f"a stage that learns P: {', '.join(able)}{closest(stage, able)}"
        yield _refused(("bound", "denoiser"), stage, allowed)


def _stage_of_acceleration(config: Config) -> Iterator[Mistake]:
    stage = config["acceleration"]["training"]["stage"]
    crops = {name: entry["budget"]["crop"] for name, entry in config["stages"].items()}
    able = [name for name, crop in crops.items() if crop >= SMALLEST_BLURRED]
    if stage not in able:
        allowed = f"a stage with a crop of at least {SMALLEST_BLURRED}: {', '.join(able)}"
        key = ("acceleration", "training", "stage")
        yield _refused(key, stage, allowed + closest(stage, able))


def _starts(config: Config) -> Iterator[Mistake]:
    for name, stage in config["stages"].items():
        init, key = stage["init"], ("stages", name, "init")
        needed = [*learned_roles(stage), *_used_roles(stage)]
        for role in needed:
            able = [*INITIALISATIONS, *_learning(config, role)]
            allowed = f"a stage that learns {role} or an initialisation: {', '.join(able)}"
            if role not in init:
                yield Mistake((*key, role), f"is missing; must be {allowed}")
            elif init[role] not in [*able, *(_networks_P(config) if role == "G" else [])]:
                yield _refused((*key, role), init[role], allowed + closest(init[role], able))
        for role in init:
            if role not in needed:
                text = f"is not allowed; {name} needs only {' and '.join(needed)}"
                yield Mistake((*key, role), text)


def _circles(config: Config) -> Iterator[Mistake]:
    trained = {n: s for n, s in config["stages"].items() if n not in _given(config)}
    starts = {
        name: {start_of(init, role)[0] for role, init in stage["init"].items()}
        for name, stage in trained.items()
    }
    try:
        TopologicalSorter(starts).prepare()
    except CycleError as error:
        circle = error.args[1]
        way = " -> ".join(circle)
        text = f"stages start from one another in a circle ({way}); must start outside of it"
        yield Mistake(("stages", circle[-1], "init"), text)


def _sections(config: Config) -> Iterator[Mistake]:
    """A stage changes only sections that it reads."""
    for name, stage in config["stages"].items():
        for section in ("equilibrium", "training_problems"):
            if section in stage and section not in sections_of(stage):
                text = f"is not allowed; the objective {stage['objective']} does not read it"
                yield Mistake(("stages", name, section), text)


def _sections_together(config: Config) -> Iterator[Mistake]:
    """What the keys of a section that stages read cannot be together."""
    for name, stage in config["stages"].items():
        for section in sections_of(stage):
            own = ("stages", name) if section in stage else ()
            for key, text in TOGETHER[section](config[section] | stage.get(section, {})):
                yield Mistake((*own, section, key), text)


def _kept(equilibrium: Config) -> Iterator[tuple[str, str]]:
    solver = equilibrium["solver"]
    if equilibrium["keep"] is not None and is_own(solver):
        if lacks := [method for method in KEEPING if not hasattr(load(solver), method)]:
            text = f"is not allowed with {solver}, which has no {' and no '.join(lacks)}"
            yield "keep", f"{text} (docs/extend.md); must be null"


def _noise(problems: Config) -> Iterator[tuple[str, str]]:
    least, most = problems["sigma_min_255"], problems["sigma_max_255"]
    if least > most:
        yield "sigma_min_255", f"{least} is not allowed; must be at most sigma_max_255, {most}"
    elif least == 0 and problems["noise"] == "log_uniform":
        yield "sigma_min_255", "0 is not allowed with noise: log_uniform; must be greater than 0"


TOGETHER = {"equilibrium": _kept, "training_problems": _noise}


def _weights(config: Config) -> Iterator[Mistake]:
    stages = config["stages"]
    for name, sources in config["weights"].items():
        if name not in stages:
            yield _unknown(("weights", name), stages)
            continue
        for role in sources or ():
            if role not in (learned := learned_roles(stages[name])):
                text = f"is not allowed; {name} learns only {' and '.join(learned)}"
                yield Mistake(("weights", name, role), text)


def _needs(config: Config) -> Iterator[tuple[Key, str, str]]:
    """Who uses which stage's network in which role."""
    for name, method in config["methods"].items():
        yield ("methods", name), method["stage"], ROLE[method["algorithm"]]
    for name, stage in config["stages"].items():
        if name not in _given(config):
            for role, start in stage["init"].items():
                yield ("stages", name, "init", role), *start_of(start, role)


def _weights_needed(config: Config) -> Iterator[Mistake]:
    given = _given(config)
    for user, stage, role in _needs(config):
        if stage in given and role not in given[stage] and stage in _learning(config, role):
            text = f"is missing; {dotted(user)} needs it, and a given stage is not trained"
            yield Mistake(("weights", stage, role), text)
    for name, sources in given.items():
        for role, source in sources.items():
            file = source.get("file")
            if file and not isfile(file):  # Path.is_file raises where a name is too long
                text = "put it there, or set init: scratch, which trains every stage"
                yield Mistake(("weights", name, role, "file"), f"there is no file {file}; {text}")


def _data_sets(config: Config) -> Iterator[Mistake]:
    data = config["data"]
    for key, id in [*_named_data_sets(data), (("tuning", "data"), config["tuning"]["data"])]:
        if _is_folder(id) and not printable(id):
            yield _refused(key, id, "a path that can be printed: rename the folder")
        elif id not in CATALOGUE and not _is_folder(id):
            known = f"{', '.join(CATALOGUE)} or {FOLDER_PREFIX}<path>"
            yield _refused(key, id, f"one of {known}{closest(id, CATALOGUE)}")
    if config["tuning"]["data"] in (data["test"], data["test_stand_in"]):
        allowed = "a data set that is not data.test or data.test_stand_in"
        yield _refused(("tuning", "data"), config["tuning"]["data"], allowed)
    for i, id in enumerate(data["validation"]):
        if id in data["train"]:
            allowed = "a data set that is not in data.train"
            yield _refused(("data", "validation", i), id, allowed)
    for role in ("test", "test_stand_in"):
        if data[role] in [*data["train"], *data["validation"]]:
            allowed = "a data set that is not in data.train or data.validation"
            yield _refused(("data", role), data[role], allowed)


def _is_folder(id: str) -> bool:
    return id.startswith(FOLDER_PREFIX) and id != FOLDER_PREFIX


def _named_data_sets(data: Config) -> Iterator[tuple[Key, str]]:
    for key in ("train", "validation"):
        for i, id in enumerate(data[key]):
            yield ("data", key, i), id
    for key in ("test", "test_stand_in"):
        if data[key] is not None:
            yield ("data", key), data[key]


def _monitors(config: Config) -> Iterator[Mistake]:
    """The monitor looks at logged steps alone, and at networks that are not compiled."""
    for name, stage in config["stages"].items():
        if stage.get("compile") and stage["log"]["monitor"] is not None:
            text = "true is not allowed with a monitor; must be false, or log.monitor null"
            yield Mistake(("stages", name, "compile"), text)
        every, monitor = stage["log"]["every"], stage["log"]["monitor"]
        if monitor is not None and monitor % every:
            key = ("stages", name, "log", "monitor")
            yield _refused(key, monitor, f"a multiple of log.every, {every}, or null")


def _shares(config: Config) -> Iterator[Mistake]:
    """Several processes have equal shares of a batch, and count updates, on which they agree."""
    processes = config["processes"]
    for name, stage in config["stages"].items():
        if name in _given(config):
            continue
        batch, minutes = stage["budget"]["batch"], stage["budget"].get("minutes")
        if batch % processes:
            key = ("stages", name, "budget", "batch")
            yield _refused(key, batch, f"a multiple of processes, {processes}")
        if minutes is not None and processes > 1:
            key = ("stages", name, "budget", "minutes")
            yield _refused(key, minutes, f"null, with steps, as processes is {processes}")


# Each with the parts of the configuration that it reads.
CHECKS: tuple[tuple[Callable[[Config], Iterator[Mistake]], tuple[str, ...]], ...] = (
    (_methods, ("methods", "stages")),
    (_tuned_methods, ("methods", "tuning")),
    (_denoiser_of_bound, ("bound", "stages")),
    (_stage_of_acceleration, ("acceleration", "stages")),
    (_starts, ("stages",)),
    (_circles, ("init", "stages", "weights")),
    (_sections, ("stages",)),
    (_sections_together, ("stages", "equilibrium", "training_problems")),
    (_weights, ("stages", "weights")),
    (_weights_needed, ("init", "methods", "stages", "weights")),
    (_data_sets, ("data", "tuning")),
    (_monitors, ("stages",)),
    (_shares, ("init", "processes", "stages", "weights")),
)
