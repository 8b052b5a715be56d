"""The entries of a configuration with one another, once each is well-formed. No PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from os.path import isdir, isfile, realpath
from typing import Any

from rglib.data.datasets import CATALOGUE, FOLDER_PREFIX, printable
from rglib.extensions import closest, is_own, load
from rglib.plan.mistakes import Key, Mistake, dotted, refused, unknown
from rglib.plan.roles import INITIALISATIONS, ROLE, learned_roles, sections_of, start_of, used_roles

Config = Mapping[str, Any]

SMALLEST_BLURRED = 32  # pixels of a crop: the blur trained on has 25x25 taps
KEEPING = ("restarted", "fields", "state")  # of rglib.core.fixed_point.KeepableSolver


def learning(config: Config, role: str) -> list[str]:
    """The stages that learn a role."""
    return [name for name, stage in config["stages"].items() if role in learned_roles(stage)]


def _networks_P(config: Config) -> list[str]:
    """What a G may start from beside another G."""
    return [f"{stage}.P" for stage in learning(config, "P")]


def _given(config: Config) -> Config:
    """The weights that are used: none with ``init: scratch``."""
    if config["init"] != "weights":
        return {}
    return {stage: sources for stage, sources in config["weights"].items() if sources is not None}


def _methods(config: Config) -> Iterator[Mistake]:
    for name, method in config["methods"].items():
        role, stage = ROLE[method["algorithm"]], method["stage"]
        able = learning(config, role)
        if stage not in able:
            who = f"a stage that learns {role}, which {method['algorithm']} needs"
            allowed = f"{who}: {', '.join(able)}{closest(stage, able)}"
            yield refused(("methods", name, "stage"), stage, allowed)
        if role == "P" and "iterations" in method.get("evaluation", {}):
            text = "is not allowed with pnp_admm, whose iterations are under admm"
            yield Mistake(("methods", name, "evaluation", "iterations"), text)


def _labels(config: Config) -> Iterator[Mistake]:
    """Rows of a table are told apart; ablations, which stand below their method, need not be."""
    named: dict[str, str] = {}
    for name, method in config["methods"].items():
        if name in config["ablations"]:
            continue
        if (other := named.setdefault(method["label"], name)) != name:
            allowed = f"a label that no other method has, as {other} does"
            yield refused(("methods", name, "label"), method["label"], allowed)


def _tuned_methods(config: Config) -> Iterator[Mistake]:
    """A method that is not configured is left to the target `tune`: few want it."""
    for algorithm, method in config["tuning"]["methods"].items():
        able = [m for m, entry in config["methods"].items() if entry["algorithm"] == algorithm]
        if method in config["methods"] and method not in able:
            allowed = f"a method with algorithm {algorithm}: {', '.join(able)}"
            key = ("tuning", "methods", algorithm)
            yield refused(key, method, allowed + closest(method, able))


def _denoiser_of_bound(config: Config) -> Iterator[Mistake]:
    stage, able = config["bound"]["denoiser"], learning(config, "P")
    if stage not in able:
        allowed = f"a stage that learns P: {', '.join(able)}{closest(stage, able)}"
        yield refused(("bound", "denoiser"), stage, allowed)


def _stage_of_acceleration(config: Config) -> Iterator[Mistake]:
    stage = config["acceleration"]["training"]["stage"]
    crops = {name: entry["budget"]["crop"] for name, entry in config["stages"].items()}
    able = [name for name, crop in crops.items() if crop >= SMALLEST_BLURRED]
    if stage not in able:
        allowed = f"a stage with a crop of at least {SMALLEST_BLURRED}: {', '.join(able)}"
        key = ("acceleration", "training", "stage")
        yield refused(key, stage, allowed + closest(stage, able))


def _starts(config: Config) -> Iterator[Mistake]:
    for name, stage in config["stages"].items():
        init, key = stage["init"], ("stages", name, "init")
        needed = [*learned_roles(stage), *used_roles(stage)]
        for role in needed:
            able = [*INITIALISATIONS, *learning(config, role)]
            allowed = f"a stage that learns {role} or an initialisation: {', '.join(able)}"
            if role not in init:
                yield Mistake((*key, role), f"is missing; must be {allowed}")
            elif init[role] not in [*able, *(_networks_P(config) if role == "G" else [])]:
                yield refused((*key, role), init[role], allowed + closest(init[role], able))
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
            yield unknown(("weights", name), stages)
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
    if any(ROLE[method["algorithm"]] == "G" for method in config["methods"].values()):
        yield ("bound", "denoiser"), config["bound"]["denoiser"], "P"
    if (study := config.get("fixed_points")) is not None:
        yield ("fixed_points", "gradients", "stage"), study["gradients"]["stage"], "G"


def _weights_needed(config: Config) -> Iterator[Mistake]:
    given = _given(config)
    for user, stage, role in _needs(config):
        if stage in given and role not in given[stage] and stage in learning(config, role):
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
    looked_at = _looked_at(config)
    for key, id in [*_named_data_sets(data), *looked_at.items()]:
        if _is_folder(id) and not printable(id):
            yield refused(key, id, "a path that can be printed: rename the folder")
        elif _is_folder(id) and not isdir(id.removeprefix(FOLDER_PREFIX)):
            yield Mistake(key, f"there is no folder {id.removeprefix(FOLDER_PREFIX)}")
        elif id not in CATALOGUE and not _is_folder(id):
            known = f"{', '.join(CATALOGUE)} or {FOLDER_PREFIX}<path>"
            yield refused(key, id, f"one of {known}{closest(id, CATALOGUE)}")
    tested = [_place(data[role]) for role in ("test", "test_stand_in")]
    trained, validated = ([_place(id) for id in data[key]] for key in ("train", "validation"))
    for key, id in looked_at.items():
        if _place(id) in tested:
            allowed = "a data set that is not data.test or data.test_stand_in"
            yield refused(key, id, allowed)
    for i, id in enumerate(data["validation"]):
        if _place(id) in trained:
            allowed = "a data set that is not in data.train"
            yield refused(("data", "validation", i), id, allowed)
    for role in ("test", "test_stand_in"):
        if _place(data[role]) in [*trained, *validated]:
            allowed = "a data set that is not in data.train or data.validation"
            yield refused(("data", role), data[role], allowed)


def _looked_at(config: Config) -> dict[Key, str]:
    """The data sets by which settings are chosen or trainings compared."""
    found: dict[Key, str] = {("tuning", "data"): config["tuning"]["data"]}
    if (study := config.get("fixed_points")) is not None:
        found["fixed_points", "data"] = study["data"]
    return found


def _is_folder(id: str) -> bool:
    return id.startswith(FOLDER_PREFIX) and id != FOLDER_PREFIX


def _place(id: str | None) -> str | None:
    """A data set by where it is: two spellings of a folder are one."""
    if id is None or not _is_folder(id):
        return id
    return FOLDER_PREFIX + realpath(id.removeprefix(FOLDER_PREFIX))


def _named_data_sets(data: Config) -> Iterator[tuple[Key, str]]:
    for key in ("train", "validation"):
        for i, id in enumerate(data[key]):
            yield ("data", key, i), id
    for key in ("test", "test_stand_in"):
        if data[key] is not None:
            yield ("data", key), data[key]


def _monitors(config: Config) -> Iterator[Mistake]:
    """The monitor looks at logged steps and networks that are not compiled; for G it blurs."""
    for name, stage in config["stages"].items():
        if stage.get("compile") and stage["log"]["monitor"] is not None:
            text = "true is not allowed with a monitor; must be false, or log.monitor null"
            yield Mistake(("stages", name, "compile"), text)
        every, monitor = stage["log"]["every"], stage["log"]["monitor"]
        if monitor is not None and monitor % every:
            key = ("stages", name, "log", "monitor")
            yield refused(key, monitor, f"a multiple of log.every, {every}, or null")
        crop = stage["budget"]["crop"]
        if monitor is not None and "G" in learned_roles(stage) and crop < SMALLEST_BLURRED:
            key = ("stages", name, "budget", "crop")
            allowed = f"at least {SMALLEST_BLURRED}, or log.monitor null, as the monitor blurs"
            yield refused(key, crop, allowed)


def _shares(config: Config) -> Iterator[Mistake]:
    """Several processes have equal shares of a batch, and count updates, on which they agree."""
    processes = config["processes"]
    for name, stage in config["stages"].items():
        if name in _given(config):
            continue
        batch, minutes = stage["budget"]["batch"], stage["budget"].get("minutes")
        if batch % processes:
            key = ("stages", name, "budget", "batch")
            yield refused(key, batch, f"a multiple of processes, {processes}")
        if minutes is not None and processes > 1:
            key = ("stages", name, "budget", "minutes")
            yield refused(key, minutes, f"null, with steps, as processes is {processes}")


# Each with the parts of the configuration that it reads.
CHECKS: tuple[tuple[Callable[[Config], Iterator[Mistake]], tuple[str, ...]], ...] = (
    (_methods, ("methods", "stages")),
    (_labels, ("ablations", "methods")),
    (_tuned_methods, ("methods", "tuning")),
    (_denoiser_of_bound, ("bound", "stages")),
    (_stage_of_acceleration, ("acceleration", "stages")),
    (_starts, ("stages",)),
    (_circles, ("init", "stages", "weights")),
    (_sections, ("stages",)),
    (_sections_together, ("stages", "equilibrium", "training_problems")),
    (_weights, ("stages", "weights")),
    (_weights_needed, ("bound", "fixed_points", "init", "methods", "stages", "weights")),
    (_data_sets, ("data", "fixed_points", "tuning")),
    (_monitors, ("stages",)),
    (_shares, ("init", "processes", "stages", "weights")),
)
