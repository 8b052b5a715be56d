"""Fixed points: solvers as values, one loop, and an outcome for every image of the batch.

A solver has ``init`` and ``step``; the loop `solve` stops each image by the rule of the paper (few
enough changes, too large an entry, too many iterations) and says which of these it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rglib import paper
from rglib.core.tensors import centre
from rglib.extensions import is_own, make

State = TypeVar("State")

LOOK_EVERY = {"cpu": 1, "cuda": 8}  # steps of `solve` between looks at which images have ended


class Map(Protocol):
    """A function of the iterate (B, 3, H, W) that can be restricted to some images."""

    def __call__(self, z: Tensor) -> Tensor:
        """The map's value, of the same shape."""

    def select(self, indices: Tensor) -> Map:
        """The map for the images at these indices of the batch."""


class Outcome(IntEnum):
    """How the iteration of one image ended."""

    CONVERGED = 0
    OUT_OF_STEPS = 1
    DIVERGED = 2
    NON_FINITE = 3


@dataclass(frozen=True)
class StoppingRule:
    """When an image's iteration ends (the paper's section 5.1).

    Attributes:
        max_iterations: at most so many steps.
        tolerance: converged once the mean square distance of consecutive iterates is below it.
        guard: diverged once an entry exceeds it in absolute value.
        per_image: judge and freeze each image by itself; False judges the batch as a whole.
    """

    max_iterations: int = paper.FIXED_POINT_ITERATIONS
    tolerance: float = paper.TOLERANCE
    guard: float = 100.0
    per_image: bool = True

    @staticmethod
    def of(equilibrium: Mapping[str, Any]) -> StoppingRule:
        """From the section ``equilibrium`` of the configuration."""
        return StoppingRule(
            max_iterations=equilibrium["max_iterations"],
            tolerance=equilibrium["tolerance"],
            guard=equilibrium["guard"],
            per_image=equilibrium["per_image"],
        )


@dataclass(frozen=True)
class Solution:
    """Iterates x (B, 3, H, W), with the number of steps (B,) and the `Outcome` (B,) of each image.

    The iterate of a non-finite image is its last finite one; of a diverged image, the one that
    exceeded the guard.
    """

    x: Tensor
    iterations: Tensor
    outcome: Tensor

    def share(self, outcome: Outcome) -> float:
        """Share of the images that ended so, in [0, 1]."""
        return (self.outcome == outcome).float().mean().item()


class Solver(Protocol, Generic[State]):
    """One way to iterate."""

    def init(self, F: Map, x0: Tensor) -> State:
        """The state before the first step; may look at the map F around x0."""

    def step(self, F: Map, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next iterate and state."""

    def select(self, state: State, indices: Tensor) -> State:
        """The state of the images at these indices."""


@runtime_checkable
class KeepableSolver(Solver[State], Protocol[State]):
    """A solver whose iterates can be kept across updates of the map, see `rglib.core.kept`."""

    def restarted(self, state: State, x0: Tensor, where: Tensor) -> State:
        """The state of images that start again from x0 where ``where`` (B, 1, 1, 1) says so."""

    def fields(self, state: State) -> dict[str, Any]:
        """The state as tensors (B, ...) and numbers by name, as a checkpoint holds them."""

    def state(self, fields: Mapping[str, Any]) -> State:
        """The state from what `fields` returned."""


@dataclass(frozen=True)
class Picard:
    """x <- F(x), for a map whose fixed point is sought."""

    def init(self, F: Map, x0: Tensor) -> None:
        """Nothing to remember."""

    def step(self, F: Map, x: Tensor, state: None) -> tuple[Tensor, None]:
        """One application of the map."""
        return F(x), None

    def select(self, state: None, indices: Tensor) -> None:
        """Nothing to select."""

    def restarted(self, state: None, x0: Tensor, where: Tensor) -> None:
        """Nothing to forget."""

    def fields(self, state: None) -> dict[str, Any]:
        """Nothing."""
        return {}

    def state(self, fields: Mapping[str, Any]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class AdamState:
    """First and second moments, and the number of steps taken."""

    mean: Tensor
    square: Tensor
    count: int


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba) on the image, along a gradient F whose zero is sought.

    Its zeros are exactly the fixed points of g; the same numbers as torch.optim.Adam.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def calls_before_first_step(self, height: int, width: int) -> float:
        """Evaluations of F by `init`."""
        return 0.0

    def init(self, F: Map, x0: Tensor) -> AdamState:
        """Zero moments."""
        return AdamState(torch.zeros_like(x0), torch.zeros_like(x0), 0)

    def step(self, F: Map, x: Tensor, state: AdamState) -> tuple[Tensor, AdamState]:
        """x - lr mean_hat / (sqrt(square_hat) + epsilon)."""
        gradient = F(x)
        count = state.count + 1
        mean = state.mean.lerp(gradient, 1 - self.beta1)
        square = (state.square * self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        correction = (1 - self.beta2**count) ** 0.5
        scale = (square.sqrt() / correction).add_(self.epsilon)
        rate = self.lr / (1 - self.beta1**count)
        return x.addcdiv(mean, scale, value=-rate), AdamState(mean, square, count)

    def select(self, state: AdamState, indices: Tensor) -> AdamState:
        """The moments of the images at these indices."""
        return AdamState(state.mean[indices], state.square[indices], state.count)

    def restarted(self, state: AdamState, x0: Tensor, where: Tensor) -> AdamState:
        """Zero moments where images start again; the number of steps is one for all."""
        mean, square = (moment.masked_fill(where, 0.0) for moment in (state.mean, state.square))
        return AdamState(mean, square, state.count)

    def fields(self, state: AdamState) -> dict[str, Any]:
        """Its moments and the number of steps."""
        return dict(vars(state))

    def state(self, fields: Mapping[str, Any]) -> AdamState:
        """From these."""
        return AdamState(**fields)


@runtime_checkable
class Split(Map, Protocol):
    """A gradient D + s^2 G whose two parts a solver can take apart."""

    @property
    def G(self) -> Callable[[Tensor], Tensor]:
        """The part that is only evaluated."""

    def semi_implicit(self, z: Tensor, tau: Tensor) -> Tensor:
        """The x with x = z - tau (D(x) / s^2 + G(z)): explicit in G, implicit in D.

        tau is (B, 1, 1, 1).
        """


@dataclass(frozen=True)
class SemiImplicitState:
    """Each image's step tau, the least that it may become, and what the momentum points away from.

    The first two are (B, 1, 1, 1); the last is the iterate before, or the last one.
    """

    tau: Tensor
    least: Tensor
    previous: Tensor


@dataclass(frozen=True)
class SemiImplicit:
    """x <- z - tau (D(x) / s^2 + G(z)) at z = x + momentum (x - previous): D implicit, G explicit.

    Not in the paper. Its fixed points are the zeros of D + s^2 G, as Adam's are, but its step
    depends on the slope of G alone and so neither on s nor on the operator: forward-backward
    splitting with the data term in the proximal part, and Nesterov's momentum, which an image
    loses when it has carried it uphill (O'Donoghue and Candes, "Adaptive restart for accelerated
    gradient schemes", 2015). An image's step begins at one over G's slope at its x0, by power
    iteration; a network is about as steep everywhere, so that the middle of the image is enough.
    Where G is steeper on the way, the image jumps over its zero and back, and each time that it
    turns round its step becomes a little shorter.

    Attributes:
        momentum: in [0, 1). More of it goes past the zero and back: with 0.95 deblurring takes up
            to 40 steps on validation crops instead of 25, and in training fewer images converge.
        shortening: of the step, each time that an image turns round. With 1, which never shortens
            it, 83 % of images converge on the way to DEQGD's x_g in training, instead of 92 %.
        least: of the first step, in (0, 1], that is left.
        power_iterations: evaluations of G before the first step, less one.
        slope_side: in pixels, of the square in the middle of an image where the slope is looked
            for; with the networks here it is within 5 per cent of that of the whole image.
    """

    momentum: float = 0.85
    shortening: float = 0.9
    least: float = 0.5
    power_iterations: int = 8
    slope_side: int = 48

    def calls_before_first_step(self, height: int, width: int) -> float:
        """Evaluations of G by `init`, counted in images of this size; each step is one more."""
        middle = min(height, self.slope_side) * min(width, self.slope_side)
        return (1 + self.power_iterations) * middle / (height * width)

    def init(self, F: Map, x0: Tensor) -> SemiImplicitState:
        """Find tau; at rest."""
        middle = centre(x0, self.slope_side)
        tau = 1 / slope(_split(F).G, middle, iterations=self.power_iterations)
        return SemiImplicitState(tau, self.least * tau, x0)

    def step(self, F: Map, x: Tensor, state: SemiImplicitState) -> tuple[Tensor, SemiImplicitState]:
        """Extrapolate, then one step of both parts."""
        z = x + self.momentum * (x - state.previous)
        following = _split(F).semi_implicit(z, state.tau)
        uphill = _product(z - following, following - x) > 0
        turned = _product(following - x, x - state.previous) < 0
        shorter = torch.maximum(self.shortening * state.tau, state.least)
        return following, SemiImplicitState(
            tau=torch.where(turned, shorter, state.tau),
            least=state.least,
            previous=torch.where(uphill, following, x),
        )

    def select(self, state: SemiImplicitState, indices: Tensor) -> SemiImplicitState:
        """The steps and the previous iterates of the images at these indices."""
        return SemiImplicitState(*(part[indices] for part in vars(state).values()))

    def restarted(self, state: SemiImplicitState, x0: Tensor, where: Tensor) -> SemiImplicitState:
        """At rest where images start again, with the step that they had."""
        return replace(state, previous=torch.where(where, x0, state.previous))

    def fields(self, state: SemiImplicitState) -> dict[str, Any]:
        """The steps and the previous iterates."""
        return dict(vars(state))

    def state(self, fields: Mapping[str, Any]) -> SemiImplicitState:
        """From these."""
        return SemiImplicitState(**fields)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image with its counterpart, (B, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def _split(F: Map) -> Split:
    if not isinstance(F, Split):
        raise TypeError(
            f"SemiImplicit takes D and G apart, which {type(F).__name__} does not offer"
        )
    return F


# By name: written out, so that a change of one solver makes nothing of the other again, see
# `rglib.records.code_hash`.
SOLVERS: dict[str, Callable[[float], Solver[Any]]] = {
    "adam": lambda lr: Adam(lr=lr),
    "semi_implicit": lambda _: SemiImplicit(),
}


def solver_named(name: str, *, lr: float) -> Solver[Any]:
    """The solver of a configuration: "adam" with the rate lr, "semi_implicit", or your own.

    Yours is named ``module:Class`` and given the rate if it has a parameter ``lr``.

    Raises:
        ExtensionError: yours cannot be made.
    """
    if is_own(name):
        own: Solver[Any] = make(name, {}, given={"lr": lr})
        return own
    return SOLVERS[name](lr)


def slope(
    G: Callable[[Tensor], Tensor], x: Tensor, *, iterations: int = 8, reach: float = 4 / 255
) -> Tensor:
    """The largest ||G(x + v) - G(x)|| / ||v|| of each image, (B, 1, 1, 1) of x (B, 3, H, W).

    By power iteration, from within: a few per cent too small after 8 iterations with the networks
    here. v, of root mean square ``reach``, is found by differences, so that no derivative of G is
    needed; with a reach of 1/255 bfloat16 inside G makes it up to a third too large.
    """
    tiny = torch.finfo(x.dtype).tiny
    value = G(x)
    # every image begins with the same v: its slope must not depend on its place in the batch
    difference = _white(x[:1].shape, x.dtype, str(x.device)).expand_as(x)
    for _ in range(iterations):
        v = difference * (reach / root_mean_square(difference).clamp_min(tiny))
        difference = G(x + v) - value
    return (root_mean_square(difference) / reach).clamp_min(tiny)


@lru_cache(maxsize=16)  # kept where it is used: sending it again would be waited for
def _white(shape: torch.Size, dtype: torch.dtype, device: str) -> Tensor:
    """Always the same white noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def root_mean_square(x: Tensor) -> Tensor:
    """Of each image of a batch (B, 3, H, W), as (B, 1, 1, 1)."""
    return x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


@torch.no_grad()
def solve(solver: Solver[State], F: Map, x0: Tensor, stop: StoppingRule) -> Solution:
    """Iterate from x0 (B, 3, H, W) until every image has ended by the stopping rule.

    Images that have ended rest, and leave the batch (unless ``stop.per_image`` is False) when it is
    next looked at: this changes no other image's iterates and saves work. On a GPU only every
    `LOOK_EVERY` steps are looked at, as a look waits for the device. No gradients are recorded: see
    `back_propagated`.
    """
    x, state, active = x0, solver.init(F, x0), torch.arange(len(x0), device=x0.device)
    found = Solution(
        x0.clone(),
        torch.zeros(len(x0), dtype=torch.long, device=x0.device),
        torch.full((len(x0),), int(Outcome.OUT_OF_STEPS), device=x0.device),
    )
    verdict, taken = found.outcome, found.iterations
    for k in range(1, stop.max_iterations + 1):
        following, state = solver.step(F, x, state)
        going = verdict == Outcome.OUT_OF_STEPS
        verdict = torch.where(going, _judge(x, following, stop), verdict)
        moves = going & (verdict != Outcome.NON_FINITE)
        x = torch.where(moves.view(-1, 1, 1, 1), following, x)
        taken = taken + going
        last = k == stop.max_iterations
        if not last and k % LOOK_EVERY[x.device.type]:
            continue
        keep = (verdict == Outcome.OUT_OF_STEPS).nonzero().flatten()
        if last or len(keep) < len(active):
            found.x[active], found.iterations[active], found.outcome[active] = x, taken, verdict
            if len(keep) == 0:
                break
            x, active, verdict, taken = x[keep], active[keep], verdict[keep], taken[keep]
            F, state = F.select(keep), solver.select(state, keep)
    return found


def back_propagated(value: Tensor, F: Map, fixed_point: Tensor, *, terms: int = 0) -> Tensor:
    """The value F(x) at a constant fixed point x, with the gradient of the fixed point itself.

    The implicit function theorem has the inverse of I - J, J the Jacobian of F at x. Its Neumann
    series I + J + J^2 + ... is cut after ``terms`` beyond the first: 0 takes the identity, which
    is Jacobian-free back-propagation (JFB, eqs. 9-11 and 31); where the norm of J is under 1 more
    terms lead to the implicit gradient.

    Args:
        value: F at the fixed point (B, 3, H, W), with the graph to the parameters of F.
        F: the map.
        fixed_point: x, of the same shape.
        terms: products with the transpose of J in the backward pass.

    Returns:
        A tensor equal to ``value``.
    """
    if terms == 0:
        return value
    x = fixed_point.detach().requires_grad_()
    again = F(x)

    def series(v: Tensor) -> Tensor:
        u = v
        for _ in range(terms):
            (pulled_back,) = torch.autograd.grad(again, x, u, retain_graph=True)
            u = v + pulled_back
        return u

    through = value.view_as(value)  # so that the hook is on this use of the value alone
    through.register_hook(series)
    return through


def _judge(x: Tensor, following: Tensor, stop: StoppingRule) -> Tensor:
    """The `Outcome` of each image after a step; OUT_OF_STEPS stands for "goes on"."""
    distance = (following - x).square().flatten(1).mean(dim=1)
    largest = following.abs().flatten(1).amax(dim=1)
    if not stop.per_image:
        distance = distance.mean().expand_as(distance)
        largest = largest.amax().expand_as(largest)
    verdict = torch.full_like(distance, int(Outcome.OUT_OF_STEPS), dtype=torch.long)
    verdict[distance < stop.tolerance] = Outcome.CONVERGED
    verdict[largest > stop.guard] = Outcome.DIVERGED
    verdict[~torch.isfinite(largest)] = Outcome.NON_FINITE
    return verdict
