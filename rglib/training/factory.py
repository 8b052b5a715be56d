"""From the configuration (checked by its schema) to the objects of this library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rglib.core.fixed_point import StoppingRule, solver_named
from rglib.core.kept import Keep
from rglib.core.problems import TrainingDistribution
from rglib.core.units import on_unit_scale
from rglib.extensions import is_own, make
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Objective
from rglib.training.objectives.pnpreg import PnPReG
from rglib.training.objectives.residual_start import ResidualStart
from rglib.training.objectives.score_start import ScoreStart
from rglib.training.trainer import Cosine, Recipe, Schedule, StepDecay

Config = Mapping[str, Any]


def recipe(entry: Config, shared: Config, *, seed: int) -> Recipe:
    """What to train and for how long, of a stage from its entry under ``stages``.

    ``shared`` holds the sections ``equilibrium`` and ``training_problems``, where it reads them.
    """
    optimiser, log = entry["optimiser"], entry["log"]
    return Recipe(
        objective=objective(entry["objective"], entry["options"], shared),
        steps=entry["budget"].get("steps"),
        minutes=entry["budget"].get("minutes"),
        lr=optimiser["lr"],
        muon=optimiser.get("muon"),
        schedule=schedule(optimiser["schedule"]),
        keep=_keep(shared),
        clip=optimiser["clip"],
        ema=optimiser["ema"],
        seed=seed,
        log_every=log["every"],
        monitor_every=log["monitor"],
    )


# By name: written out, so that a change of one objective trains no stage of another again, see
# `rglib.records.code_hash`.
OBJECTIVES: dict[str, Callable[[Config, Config], Objective]] = {
    "denoising": lambda o, _: Denoising(**on_unit_scale(o)),
    "residual_start": lambda o, shared: ResidualStart(
        **on_unit_scale(o), distribution=TrainingDistribution.of(shared["training_problems"])
    ),
    "score_start": lambda o, shared: ScoreStart(
        **on_unit_scale(o), distribution=TrainingDistribution.of(shared["training_problems"])
    ),
    "pnpreg": lambda o, _: PnPReG(**on_unit_scale(o)),
    "equilibrium": lambda o, shared: _equilibrium(
        o, shared["equilibrium"], shared["training_problems"]
    ),
}


def objective(name: str, options: Config, shared: Config) -> Objective:
    """An objective from its name and options, or ``module:Class`` of your own.

    Raises:
        ExtensionError: yours cannot be made.
    """
    if is_own(name):
        own: Objective = make(name, options, given=shared)
        return own
    return OBJECTIVES[name](options, shared)


SCHEDULES: dict[str, Callable[..., Schedule]] = {"cosine": Cosine, "step": StepDecay}


def _keep(shared: Config) -> Keep | None:
    settings = shared.get("equilibrium", {})
    entry = settings.get("keep")
    return None if entry is None else Keep(**entry, guard=settings["guard"])


def schedule(entry: Config) -> Schedule:
    """{cosine: {warmup}} or {step: {every, gamma}}."""
    (name,) = (name for name in SCHEDULES if entry.get(name) is not None)
    return SCHEDULES[name](**entry[name])


def _equilibrium(options: Config, shared: Config, problems: Config) -> Equilibrium:
    return Equilibrium(
        link=options.get("link"),
        forward_backward=options.get("forward_backward"),
        gradient_descent=options.get("gradient_descent"),
        eta_fb=shared["eta_fb"],
        eta_gd=shared["eta_gd"],
        solver=solver_named(shared["solver"], lr=shared["eta_gd"]),
        stop=StoppingRule.of(shared),
        link_variance=shared["link_variance"],
        backward_terms=shared["backward_terms"],
        backward_map=shared["backward_map"],
        loss=shared["loss"],
        x0=shared["x0"],
        distribution=TrainingDistribution.of(problems),
    )
