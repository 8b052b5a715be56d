"""Code of your own that a configuration names: it can be loaded and has what it must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from rglib.extensions import ExtensionError, is_own, load, make
from rglib.plan.mistakes import Key, Mistake
from rglib.plan.roles import ROLES, declared, sections_of

Config = Mapping[str, Any]

# what rglib.core.problems.Degradation and rglib.core.fixed_point.Solver have
DEGRADATION = ("task", "sigma", "smallest", "crop", "operator", "start")
SOLVER = ("init", "step", "select")


def own_code(config: Config) -> Iterator[Mistake]:
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
            yield from _own_solver(key, name)


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
    roles = [*declared(reference, "learns"), *declared(reference, "uses")]
    if not declared(reference, "learns") or not set(roles) <= set(ROLES):
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
        made = make(reference, problem.get("options", {}), given={})
    except ExtensionError as error:
        yield Mistake((*key, "options"), str(error))
        return
    if lacks := [name for name in DEGRADATION if not hasattr(made, name)]:
        text = f"{reference} has no {' and no '.join(lacks)} (docs/extend.md)"
        yield Mistake((*key, "degradation"), text)
        return
    tasks = [name for name, entry in config["admm"].items() if isinstance(entry, Mapping)]
    if made.task not in tasks:
        text = f"{reference} must have a `task`, one of {', '.join(tasks)}; it is {made.task!r}"
        yield Mistake((*key, "degradation"), text)
    if not isinstance(made.sigma, Real) or not 0 <= float(made.sigma) <= 1:
        text = f"{reference} must have a `sigma` on [0, 1]; it is {made.sigma!r}"
        yield Mistake((*key, "degradation"), text)


def _own_solver(key: Key, reference: str) -> Iterator[Mistake]:
    if mistakes := list(_unloadable(key, reference)):
        yield from mistakes
    elif lacks := [name for name in SOLVER if not hasattr(load(reference), name)]:
        yield Mistake(key, f"{reference} has no {' and no '.join(lacks)} (docs/extend.md)")


def _unloadable(key: Key, reference: str) -> Iterator[Mistake]:
    try:
        load(reference)
    except ExtensionError as error:
        yield Mistake(key, str(error))
