"""The code that each job of a plan runs, as a parameter of its rule: changed code runs it again.

A job's code is said in words of `rglib.records.code_hash`: its script, then the choices that the
configuration makes by name. Code of your own is named itself. No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from os.path import isfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rglib.data.datasets import DOWNLOADS
from rglib.data.listing import checksums
from rglib.extensions import is_own
from rglib.plan.plan import Plan
from rglib.plan.roles import ROLE
from rglib.records.code_hash import code_hash

Config = Mapping[str, Any]
Hashes = dict[str, str]  # of code, by the words that say what it is

NOTHING: Mapping[str, str] = MappingProxyType({})


def one_of(table: str, *names: str | None) -> str:
    """Of this dict in rglib only these names are asked for; code of your own is in none."""
    keys = {name for name in names if name and not is_own(name)}
    return f"{table}[{','.join(sorted(keys))}]"


def networks(roles: Iterable[str], config: Config) -> list[str]:
    """The networks of these roles, DRUNets or of your own."""
    own = {role: config["network"].get(role) for role in roles}
    drunets = [role for role, name in own.items() if not name]
    return [one_of("rglib.core.networks:NETWORKS", *drunets), *filter(None, own.values())]


def solver(name: str | None) -> list[str]:
    """A solver, one of the project's or of your own; None where none is used."""
    own = [name] if name and is_own(name) else []
    return [one_of("rglib.core.fixed_point:SOLVERS", name), *own]


def restoring(algorithm: str, config: Config, *, by: str) -> list[str]:
    """What restores by an algorithm, and by a solver where that uses one."""
    return [
        one_of("rglib.restoration.restorers:RESTORERS", algorithm),
        *solver(by if algorithm == "gradient_descent" else None),
        *networks([ROLE[algorithm]], config),
    ]


def evaluating(method: str, plan: Plan) -> list[str]:
    """What evaluates a method."""
    by = plan.evaluation(method)["solver"]
    return restoring(plan.algorithm(method), plan.config, by=by)


def training(stage: str, plan: Plan, *, schedules: Iterable[str] = ()) -> list[str]:
    """What trains a stage.

    ``schedules`` are those of the learning rate that a script takes whatever the entry says.
    """
    entry = plan.stages.entry(stage)
    objective, schedule = entry["objective"], entry["optimiser"]["schedule"]
    taken = [key for key in schedule if schedule[key] is not None]
    equilibrium = plan.stages.shared(stage).get("equilibrium", {})
    by, backward_map = equilibrium.get("solver"), equilibrium.get("backward_map")
    by_name = [
        *solver(by),
        one_of("rglib.training.objectives.equilibrium:BACKWARD_MAPS", backward_map),
    ]
    if is_own(objective):  # it may take any of these, whatever the configuration says
        by_name = [objective, *([by] if by and is_own(by) else [])]
    return [
        one_of("rglib.training.factory:OBJECTIVES", objective),
        one_of("rglib.training.factory:SCHEDULES", *taken, *schedules),
        *networks(entry["init"], plan.config),
        *by_name,
    ]


def contents(files: Iterable[str]) -> list[str]:
    """The checksums of files, as a parameter: another file is noticed whatever its time says."""
    return [digest for _, digest in checksums(map(Path, files), DOWNLOADS)]


def files_in(options: Config) -> list[str]:
    """The files that options of your own name."""
    return [value for value in options.values() if isinstance(value, str) and isfile(value)]


@dataclass(frozen=True)
class Code:
    """The hashes of the code of a plan's jobs.

    Attributes:
        plan: whose jobs.
        script_path: where a script of the workflow lies, by its name without ``.py``.
    """

    plan: Plan
    script_path: Callable[[str], Path]

    @cached_property
    def _hashed(self) -> Callable[..., str]:
        return cache(code_hash)  # of the same few scripts, for many jobs

    def script(self, name: str, *choices: str) -> Hashes:
        """The code of a script, with the choices that it makes of what is named."""
        entries = " ".join([f"workflow/scripts/{name}.py", *choices])
        return {entries: self._hashed(entries, script=self.script_path(name))}

    def result(
        self,
        make: str,
        *,
        stages: Iterable[str],
        methods: Iterable[str] = (),
        also: Iterable[Hashes] = (),
        given: Mapping[str, str] = NOTHING,
    ) -> dict[str, Any]:
        """The parameters by which a rule says what makes its result, and the code of all of it.

        Args:
            make: the function that makes it, see `rglib.report.job`, as ``module:name``.
            stages: whose training or weights it was made with.
            methods: whose evaluations it was made with.
            also: other code that it was made with.
            given: what else the function takes, by parameter, as ``module:name``.
        """
        made = [
            self.script("report", make, *given.values()),
            *also,
            *self._beneath(self.plan.stages.trained(stages)),
            *map(self.evaluation, methods),
        ]
        code = {entries: digest for one in made for entries, digest in one.items()}
        return {"make": make, "given": dict(given), "code": code}

    def _beneath(self, trained: Sequence[str]) -> Iterator[Hashes]:
        """The code of the test set, of your own problems, and of stages with their data."""
        yield from map(self.script, ["test_set", *(["dataset", "store"] if trained else [])])
        yield from (own["code"] for own in self.problems.values() if own)
        yield from map(self.training, trained)

    def evaluation(self, method: str) -> Hashes:
        """Of the evaluation of a method."""
        return self.script("evaluate", *evaluating(method, self.plan))

    def training(self, stage: str) -> Hashes:
        """Of the training of a stage."""
        return self.script("train", *training(stage, self.plan))

    def tuning(self, target: str) -> Hashes:
        """Of the tuning of a problem or task."""
        by = self.plan.config["evaluation"]["solver"]
        algorithm = self.plan.tuned[target]
        return self.script("tune", *restoring(algorithm, self.plan.config, by=by))

    def study(self, stage: str) -> Hashes:
        """Of the training of a stage of the study of fixed points, and of the look at its zeros."""
        by = self.plan.config["evaluation"]["solver"]
        at_zeros = restoring("gradient_descent", self.plan.config, by=by)
        return self.script("study_fixed_points", *training(stage, self.plan), *at_zeros)

    def training_params(
        self, stage: str, *, script: str = "train", schedules: Iterable[str] = ()
    ) -> dict[str, Any]:
        """What a stage's numbers depend on, and no more: what changes here trains it again."""
        return {
            **self.plan.stages.parameters(stage),
            "files": contents(files_in(self.plan.stages.entry(stage)["options"])),
            "code": self.script(script, *training(stage, self.plan, schedules=schedules)),
        }

    @cached_property
    def problems(self) -> dict[str, dict[str, Any]]:
        """What each problem of your own is; nothing of the paper's, whose name says it."""
        return {id: self._problem(entry) for id, entry in self.plan.config["problems"].items()}

    def _problem(self, entry: Config) -> dict[str, Any]:
        if "degradation" not in entry:
            return {}
        degradation = entry["degradation"]
        return {key: entry[key] for key in ("degradation", "options") if key in entry} | {
            "code": {degradation: self._hashed(degradation)},
            "files": contents(files_in(entry.get("options", {}))),
        }
