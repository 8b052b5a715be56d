"""The methods that restore: an algorithm with a network and its settings, made for one problem.

`restorer` makes one from the configuration. What it makes is in `rglib.core.algorithms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rglib.core.algorithms import ADMMSchedule, GradientDescent, PnPADMM, Record, Start
from rglib.core.fixed_point import solver_named
from rglib.core.problems import PROBLEMS, Degradation, Observation

Config = Mapping[str, Any]


class Restorer(Protocol):
    """A method made for one problem."""

    @property
    def recorded(self) -> int:
        """How many iterates ``record`` is shown."""

    def restore(self, seen: Observation, record: Record) -> Tensor:
        """The restored image (B, 3, H, W); ``record`` is shown every iterate, x0 first."""


@runtime_checkable
class Batched(Restorer, Protocol):
    """A method that can restore several images of one size at a time."""

    def alike(self, other: object) -> bool:
        """Whether images of both methods may share a batch."""

    def together(
        self, methods: Sequence[Any], seen: Sequence[Observation], record: Record
    ) -> Tensor:
        """The restored images of methods that are alike, (B, 3, H, W), each of its own."""


def restorer(
    algorithm: str,
    problem_id: str,
    network: torch.nn.Module,
    config: Config,
    *,
    degradation: Degradation | None = None,
) -> Restorer:
    """The method for one problem, from its entries in the configuration.

    ``config`` holds ``evaluation``, and ``problems`` or ``admm``; ``degradation`` is that of the
    problem where this is none of the twelve.
    """
    return RESTORERS[algorithm](problem_id, network, config, degradation or PROBLEMS[problem_id])


def _pnp_admm(
    problem_id: str, network: torch.nn.Module, config: Config, degradation: Degradation
) -> PnPADMM:
    schedule = config["admm"][degradation.task]
    return PnPADMM(
        network,
        ADMMSchedule(
            iterations=schedule["iterations"],
            sigma_first=schedule["sigma_first_255"] / 255,
            sigma_last=max(schedule["sigma_last_255"] / 255, degradation.sigma),
            sigma_min=config["admm"]["sigma_min_255"] / 255,
        ),
        ensemble=config["evaluation"]["ensemble"],
        x0=_start(config),
    )


def _gradient_descent(
    problem_id: str, network: torch.nn.Module, config: Config, degradation: Degradation
) -> GradientDescent:
    problem = config["problems"][problem_id]
    return GradientDescent(
        network,
        solver=solver_named(config["evaluation"]["solver"], lr=problem["lr"]),
        s=problem["s_255"] / 255,
        iterations=config["evaluation"]["iterations"],
        ensemble=config["evaluation"]["ensemble"],
        tile_above=config["evaluation"]["tile_above"],
        tolerance=config["evaluation"]["tolerance"],
        average=config["evaluation"]["average"],
        x0=_start(config),
    )


def _start(config: Config) -> Start:
    """Where methods begin; settings of older networks do not say it."""
    start: Start = config["evaluation"].get("x0", "released")
    return start


# By name: written out, so that a change of one algorithm evaluates no method of the other again,
# see `rglib.records.code_hash`.
RESTORERS: dict[str, Callable[[str, torch.nn.Module, Config, Degradation], Restorer]] = {
    "gradient_descent": _gradient_descent,
    "pnp_admm": _pnp_admm,
}
