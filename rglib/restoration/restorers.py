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
from rglib.core.networks import inference_only
from rglib.core.problems import PROBLEMS, Degradation, Observation
from rglib.core.units import on_unit_scale

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
    return PnPADMM(
        inference_only(network),
        admm_schedule(config, degradation.task, sigma=degradation.sigma),
        ensemble=config["evaluation"]["ensemble"],
        x0=_start(config),
    )


def admm_schedule(config: Config, task: str, *, sigma: float) -> ADMMSchedule:
    """The course of PnP-ADMM for a task, which ends no lower than at the noise std sigma."""
    admm, course = on_unit_scale(config["admm"]), on_unit_scale(config["admm"][task])
    return ADMMSchedule(
        iterations=course["iterations"],
        sigma_first=course["sigma_first"],
        sigma_last=max(course["sigma_last"], sigma),
        sigma_min=admm["sigma_min"],
    )


def _gradient_descent(
    problem_id: str, network: torch.nn.Module, config: Config, degradation: Degradation
) -> GradientDescent:
    problem = on_unit_scale(config["problems"][problem_id])
    return GradientDescent(
        inference_only(network),
        solver=solver_named(config["evaluation"]["solver"], lr=problem["lr"]),
        s=problem["s"],
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
