"""A certificate of a restoration: how it ended, and how near to a zero of D + s^2 G it is.

What is measured is cheap beside the restoration: about a quarter of its time with the settings of
the networks that ship. Nothing of it needs the ground truth.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rglib
from rglib import paper
from rglib.core.algorithms import DIHEDRAL, GradientDescent, PnPADMM, RotatingGradient
from rglib.core.fixed_point import Outcome, root_mean_square, slope
from rglib.core.maps import GradientStep, RegularizedGradient
from rglib.core.problems import DataGradient, Problem, degradations
from rglib.core.spectrum import lipschitz
from rglib.files import replacing
from rglib.restoration.prior import Prior, nearest, observed, problem_of

ETA = paper.ETA_FB  # the step size of g; the estimate of the distance does not depend on it
POWER_ITERATIONS = 10
DIVERGED_ABOVE = 100.0  # the guard of the paper's training
SUFFIX = "-certificate.json"


@dataclass(frozen=True)
class Theorem1:
    r"""What the contraction of g says about the distance to its fixed point.

    The step of the proof of Theorem 1 holds at every x: :math:`\lVert x - x_g \rVert \le
    \lVert g(x) - x \rVert / (1 - L_g)`, with :math:`\lVert g(x_f) - x_f \rVert^2 = L_\text{link}`
    at a fixed point of f. L_g is here the local constant at x, estimated from below, so that
    ``distance`` is an estimate and no proof.

    Attributes:
        applies: L_g < 1.
        distance: root mean square of x - x_g, at most, on [0, 1]; None where it does not apply.
        says: in words.
    """

    applies: bool
    distance: float | None
    says: str


@dataclass(frozen=True)
class Certificate:
    """What is known of a restoration x of one image; root mean squares are over its entries.

    What speaks of G is None for methods that restore with a P, by PnP-ADMM, and where x is not
    finite.

    Attributes:
        method: ``rerg`` for example.
        weights: sha256 of the network's file, None if it was not read from one.
        problem: operator, noise std, and the problem of the tables whose settings were taken.
        settings: of the algorithm.
        outcome: an `Outcome` in words: converged where the method's own rule ended it, out_of_steps
            where its iterations did, diverged with an entry over 100, or non_finite.
        calls: evaluations of the network, for this image, the step's length included.
        residual: root mean square of D(x) + s^2 G(x), which is zero at a fixed point of g.
        residual_start: the same at x0.
        residual_ensemble: of the mean of D + s^2 T^-1 G T over the eight transforms, which is what
            the periodic ensemble goes to.
        slope: of G at x, as `rglib.core.fixed_point.slope`.
        lipschitz: of g at x with step size `ETA`, from below, as
            `rglib.core.spectrum.lipschitz`.
        theorem_1: what follows.
        precision: inside the network.
        version: of rglib and torch.
    """

    method: str
    weights: str | None
    problem: Mapping[str, Any]
    settings: Mapping[str, Any]
    outcome: str
    calls: int
    residual: float | None
    residual_start: float | None
    residual_ensemble: float | None
    slope: float | None
    lipschitz: float | None
    theorem_1: Theorem1 | None
    precision: str
    version: str

    @property
    def said(self) -> str:
        """The gist in a line."""
        words = f"{self.outcome.replace('_', ' ')} after {self.calls} calls of the network"
        if self.residual is None:
            return words
        return f"{words}, D + s^2 G {self.residual_start:.1e} -> {self.residual:.1e}"

    def as_json(self) -> str:
        """A JSON object."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: it cannot be written.
        """
        with replacing(path) as partial:
            partial.write_text(self.as_json(), encoding="utf-8")


@contextmanager
def _calls(network: nn.Module) -> Iterator[list[None]]:
    """A list that grows by one with every call of the network."""
    calls: list[None] = []
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        hook.remove()


def certified(
    prior: Prior,
    y: Tensor,
    problem: str | Problem,
    *,
    like: str | None = None,
    progress: str | None = None,
) -> tuple[Tensor, Certificate]:
    """Restore one image as `Prior.restore`, with a certificate.

    Args:
        prior: what `rglib.load` returns.
        y: the observation (1, 3, h, w).
        problem: as `Prior.restore`.
        like: likewise.
        progress: likewise.

    Returns:
        x (1, 3, H, W), the same as without, and its certificate.

    Raises:
        ValueError: as `Prior.restore`; or y is more than one image.
    """
    if y.ndim == 4 and len(y) != 1:
        raise ValueError(f"a certificate is of one image (1, 3, h, w), got {tuple(y.shape)}")
    shown: deque[Tensor] = deque(maxlen=2)
    with _calls(prior.network) as calls:
        x = prior.restore(y, problem, like=like, progress=progress, record=shown.append)
    if isinstance(problem, str):
        like = like or problem
        entries = {problem: prior.settings["problems"][problem]}
        problem = problem_of(degradations(entries)[problem], y.shape)
    like = like or nearest(problem, prior.settings["problems"])
    method = prior.method(problem, like=like)
    rested = isinstance(method, GradientDescent) and len(shown) == 2 and shown[0] is shown[1]
    outcome = _outcome(x, rested=rested)
    measured: dict[str, Any] = dict.fromkeys(MEASURED)
    if isinstance(method, GradientDescent) and outcome != Outcome.NON_FINITE:
        measured = _measured(replace(method, G=prior.network), x, y, problem, prior.device)
    return x, Certificate(
        method=prior.name,
        weights=prior.weights,
        problem={
            "operator": type(problem.A).__name__,
            "sigma": problem.sigma,
            "settings_of": like,
        },
        settings=_settings(method),
        outcome=outcome.name.lower(),
        calls=len(calls),
        precision=str(getattr(prior.network, "arithmetic", torch.float32)).removeprefix("torch."),
        version=f"rglib {rglib.__version__}, torch {torch.__version__}",
        **measured,
    )


MEASURED = (
    "residual",
    "residual_start",
    "residual_ensemble",
    "slope",
    "lipschitz",
    "theorem_1",
)


@torch.no_grad()
def _measured(
    method: GradientDescent, x: Tensor, y: Tensor, problem: Problem, device: torch.device
) -> dict[str, Any]:
    seen = observed(y.float().to(device), Problem(problem.A.to(device), problem.sigma))
    x = x.to(device)
    F = RegularizedGradient(method.G, DataGradient(seen.problem.A, seen.y), method.s)
    residual, steepest = _size(F(x)), slope(method.G, x).item()
    contraction = lipschitz(GradientStep(F, ETA), x, iterations=POWER_ITERATIONS)
    return {
        "residual": residual,
        "residual_start": _size(F(seen.x0)),
        "residual_ensemble": _size(_ensemble(F)(x)),
        "slope": steepest,
        "lipschitz": contraction,
        "theorem_1": theorem_1(residual, contraction),
    }


def theorem_1(residual: float, contraction: float) -> Theorem1:
    """What follows from the residual (a root mean square) and L_g of g with step size `ETA`."""
    if not contraction < 1:
        says = f"says nothing: g is no contraction at x, L_g >= {contraction:.6g}"
        return Theorem1(applies=False, distance=None, says=says)
    distance = ETA * residual / (1 - contraction)
    says = (
        f"x is within {distance:.2g} (root mean square) of the fixed point of g, if L_g is "
        f"{contraction:.6g} all around; this L_g is local and estimated from below"
    )
    return Theorem1(applies=True, distance=distance, says=says)


def _ensemble(F: RegularizedGradient) -> Callable[[Tensor], Tensor]:
    """D + s^2 times the mean of G over the eight transforms."""
    rotated = [RotatingGradient(F.G, transform) for transform in DIHEDRAL]

    def mean(x: Tensor) -> Tensor:
        return torch.stack([G(x) for G in rotated]).mean(dim=0)

    return RegularizedGradient(mean, F.D, F.sigma)


def _size(x: Tensor) -> float:
    return root_mean_square(x).item()


def _outcome(x: Tensor, *, rested: bool) -> Outcome:
    largest = x.abs().max().item()
    if not math.isfinite(largest):
        return Outcome.NON_FINITE
    if largest > DIVERGED_ABOVE:
        return Outcome.DIVERGED
    return Outcome.CONVERGED if rested else Outcome.OUT_OF_STEPS


def _settings(method: GradientDescent | PnPADMM) -> dict[str, Any]:
    """The fields of the algorithm but for its network."""
    if isinstance(method, PnPADMM):
        return {
            "algorithm": "pnp_admm",
            "schedule": asdict(method.schedule),
            "ensemble": method.ensemble,
            "x0": method.x0,
        }
    return {
        "algorithm": "gradient_descent",
        "solver": {type(method.solver).__name__: vars(method.solver)},
        "s": method.s,
        "iterations": method.iterations,
        "ensemble": method.ensemble,
        "tile_above": method.tile_above,
        "tolerance": method.tolerance,
        "average": method.average,
        "x0": method.x0,
    }
