"""Theorem 1 for trained networks: both sides of (18) and (25), problem by problem.

The theorem has one step size eta for f and g. The weight of the regularizer is sigma = s of the
tests, which is the noise level where there is noise. Images are centre crops, since the theorem
wants fixed points and a Jacobian where the tests want a number of steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rglib.core.fixed_point import Adam, Map, Outcome, Picard, StoppingRule, solve
from rglib.core.maps import Denoiser, ForwardBackward, Gradient, GradientStep, RegularizedGradient
from rglib.core.problems import DataGradient, Observation, observe_test_image
from rglib.core.spectrum import lipschitz
from rglib.core.tensors import centre
from rglib.core.theorem import Sides, link_loss
from rglib.progress import progress
from rglib.restoration.evaluation import GroundTruth

LOGGER = logging.getLogger(__name__)

Config = Mapping[str, Any]

SPELLS = 10  # of Adam on the way to x_g, each with a quarter of the last one's learning rate


@dataclass(frozen=True)
class Search:
    """How fixed points and Lipschitz constants are looked for.

    Attributes:
        eta: step size of f and g.
        lr: learning rate with which Adam sets out for x_g.
        stop: of both fixed points; the tolerance is on the mean square of F(x) - x.
        power_iterations: of `lipschitz`.
    """

    eta: float
    lr: float
    stop: StoppingRule
    power_iterations: int

    @staticmethod
    def of(bound: Config, equilibrium: Config) -> Search:
        """From the sections of the configuration; Adam sets out with eta_gd, as in training."""
        return Search(
            eta=equilibrium["eta_fb"],
            lr=equilibrium["eta_gd"],
            stop=StoppingRule(
                max_iterations=bound["iterations"],
                tolerance=bound["tolerance"],
                guard=equilibrium["guard"],
            ),
            power_iterations=bound["power_iterations"],
        )


@dataclass(frozen=True)
class FixedPoint:
    """What was found of a fixed point of F: x (1, 3, H, W), the outcome, ||F(x) - x||."""

    x: Tensor
    outcome: Outcome
    residual: float

    @property
    def usable(self) -> bool:
        """Converged, or at least on the way; where it diverged, x means nothing."""
        return self.outcome in (Outcome.CONVERGED, Outcome.OUT_OF_STEPS)


def picard(f: ForwardBackward, x0: Tensor, search: Search) -> FixedPoint:
    """x_f, by applying f to x0 (1, 3, H, W) again and again."""
    found = solve(Picard(), f, x0, search.stop)
    return FixedPoint(found.x, Outcome(int(found.outcome)), _change(f, found.x).norm().item())


def descend(g: GradientStep, x0: Tensor, search: Search) -> FixedPoint:
    """x_g, by Adam from x0 (1, 3, H, W) along D + sigma^2 G, with ever smaller learning rates.

    Adam's steps say little about how far it has come, so g(x) - x is looked at after each spell.
    """
    steps = max(1, search.stop.max_iterations // SPELLS)
    spell = replace(search.stop, max_iterations=steps, tolerance=0.0)
    for k in range(SPELLS):
        found = solve(Adam(lr=search.lr / 4**k), g.gradient, x0, spell)
        x0, outcome = found.x, Outcome(int(found.outcome))
        change = _change(g, x0)
        if outcome == Outcome.OUT_OF_STEPS and change.square().mean() < search.stop.tolerance:
            outcome = Outcome.CONVERGED
        if outcome != Outcome.OUT_OF_STEPS:
            break
    return FixedPoint(x0, outcome, change.norm().item())


@torch.no_grad()
def _change(F: Map, x: Tensor) -> Tensor:
    return F(x) - x


@torch.no_grad()
def both_sides(
    P: Denoiser, G: Gradient, seen: Observation, *, sigma: float, search: Search
) -> dict[str, Any]:
    """Both sides of Theorem 1 for one image, and how far they can be trusted; a row of the table.

    What depends on a fixed point that was not found is nan. L_g is the larger of the estimates at
    x_g and at x_f.
    """
    D = DataGradient(seen.problem.A, seen.y)
    f = ForwardBackward(P, D, sigma, search.eta)
    g = GradientStep(RegularizedGradient(G, D, sigma), search.eta)
    x_f, x_g = picard(f, seen.x0, search), descend(g, seen.x0, search)
    estimates = [
        lipschitz(g, point.x, iterations=search.power_iterations)
        for point in (x_g, x_f)
        if point.usable
    ]
    sides = Sides(
        distance_g=_distance(x_g, seen.x_hat),
        distance_f=_distance(x_f, seen.x_hat),
        link=link_loss(f, G, x_f.x).item() if x_f.usable else math.nan,
        contraction=max(estimates, default=math.nan),
    )
    secant = _secant(g, x_g, x_f)
    return {
        "contraction": sides.contraction,
        "assumption_holds": sides.assumption_holds,
        "distance_g": sides.distance_g,
        "distance_f": sides.distance_f,
        "link": sides.link,
        "bound_18": sides.bound_18,
        "holds_18": sides.holds_18,
        "tightness_18": sides.tightness_18,
        "left_25": sides.left_25,
        "right_25": sides.right_25,
        "holds_25": sides.holds_25,
        "secant": secant,
        "bound_secant": replace(sides, contraction=secant).bound_18,
        "x_f_outcome": x_f.outcome.name.lower(),
        "x_f_residual": x_f.residual,
        "x_g_outcome": x_g.outcome.name.lower(),
        "x_g_residual": x_g.residual,
    }


def _distance(point: FixedPoint, x_hat: Tensor) -> float:
    return (point.x - x_hat).norm().item() if point.usable else math.nan


def _secant(g: GradientStep, x_g: FixedPoint, x_f: FixedPoint) -> float:
    """||g(x_g) - g(x_f)|| / ||x_g - x_f||, the one value of L_g that the theorem's proof uses."""
    if not (x_g.usable and x_f.usable):
        return math.nan
    change, distance = (g(x_g.x) - g(x_f.x)).norm(), (x_g.x - x_f.x).norm()
    return float(change / distance)


def both_sides_of_all(
    P: Denoiser,
    G: Gradient,
    images: Sequence[GroundTruth],
    *,
    sigmas: Mapping[str, float],
    crop: int,
    search: Search,
    device: torch.device,
) -> pd.DataFrame:
    """`both_sides` on the centre crop of every image, for every problem; ``sigmas`` by its id."""
    rows = []
    with progress("Theorem 1", total=len(sigmas) * len(images), unit="image") as advance:
        for problem_id, sigma in sigmas.items():
            for image in images:
                advance(0, note=f"{problem_id} {image.name}")
                seen = observe_test_image(problem_id, centre(image.pixels, crop)).to(device)
                row = both_sides(P, G, seen, sigma=sigma, search=search)
                rows.append({"problem_id": problem_id, "image": image.name} | row)
                LOGGER.info("%s", rows[-1])
                advance()
    return pd.DataFrame(rows)
