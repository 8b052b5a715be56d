"""Restoration at test time: gradient descent with an RG and PnP-ADMM."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rglib import paper
from rglib.core.fixed_point import Solver, root_mean_square
from rglib.core.interpolation import interpolated
from rglib.core.maps import Denoiser, Gradient, RegularizedGradient
from rglib.core.operators import Mask
from rglib.core.problems import UNKNOWN_PIXEL, DataGradient, Observation, SideBySide

Start = Literal["released", "interpolated"]
Record = Callable[[Tensor], None]  # is shown every iterate, the starting point first

TILE_OVERLAP = 32  # pixels; the released code's


@dataclass(frozen=True)
class Dihedral:
    """Transform number i of the square: quarter turns, then perhaps a flip of the rows."""

    turns: int
    flip: bool

    def __call__(self, x: Tensor) -> Tensor:
        """T x."""
        x = x.rot90(self.turns, dims=(-2, -1))
        return x.flip(-2) if self.flip else x

    def inverse(self, x: Tensor) -> Tensor:
        """T^-1 x."""
        x = x.flip(-2) if self.flip else x
        return x.rot90(-self.turns, dims=(-2, -1))


# The order of the released code: id; rot90 then flip; flip; rot270; rot180 then flip; rot90;
# rot180; rot270 then flip.
DIHEDRAL = (
    Dihedral(0, False),
    Dihedral(1, True),
    Dihedral(0, True),
    Dihedral(3, False),
    Dihedral(2, True),
    Dihedral(1, False),
    Dihedral(2, False),
    Dihedral(3, True),
)


@dataclass(frozen=True)
class RotatingGradient:
    """G seen through one dihedral transform: T^-1 G(T x)."""

    G: Gradient
    transform: Dihedral

    def __call__(self, x: Tensor) -> Tensor:
        return self.transform.inverse(self.G(self.transform(x)))


@dataclass(frozen=True)
class Tiled:
    """G on four overlapping parts of images of more than ``above`` pixels, as in PnP-ReG's code.

    There it saves memory, at the price of seams: near the middle G sees less than its receptive
    field. Each part ends at the multiple of `TILE_OVERLAP` next beyond the middle. Images of more
    than four times as many pixels are cut again.
    """

    G: Gradient
    above: int

    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height * width <= self.above:
            return self.G(x)
        inner = self.G if height * width <= 4 * self.above else self
        result = torch.empty_like(x)
        for row, rows in _halves(height):
            for column, columns in _halves(width):
                part = inner(x[..., rows, columns])
                result[..., row, column] = part[..., _within(row, rows), _within(column, columns)]
        return result


def _halves(length: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The two halves of a side, each with the part that it is taken from."""
    middle = length // 2
    reach = min(length, (middle // TILE_OVERLAP + 1) * TILE_OVERLAP)
    first, second = slice(0, middle), slice(middle, length)
    return (first, slice(0, reach)), (second, slice(length - reach, length))


def _within(half: slice, part: slice) -> slice:
    return slice(half.start - part.start, half.stop - part.start)


def start(seen: Observation, x0: Start) -> Tensor:
    """Where a method begins, (B, 3, H, W).

    ``released`` is the starting point of the released scripts. ``interpolated`` is another one in
    completion alone: what is not known is interpolated instead of grey, which saves most of the
    iterations, as it is the large areas that take many.
    """
    A = seen.problem.A
    if x0 == "interpolated" and isinstance(A, Mask):
        return interpolated(seen.y, A.mask, otherwise=UNKNOWN_PIXEL)
    return seen.x0


@dataclass(frozen=True)
class GradientDescent:
    """To a zero of D(x) + s^2 G(x), with a periodic x8 ensemble; with Adam, as PnP-ReG's code.

    Attributes:
        G: the regularizing gradient.
        solver: how; the paper's is `Adam` with a constant learning rate.
        s: the weight of G is s^2; the noise std on [0, 1] where there is noise.
        iterations: entries of the curve; the last follows iterations - 1 steps.
        ensemble: rotate through the eight transforms; False applies G as it is.
        tile_above: pixels above which G is applied to parts, see `Tiled`; None never does.
        tolerance: an image has converged, and leaves the batch, once a round of eight steps has
            moved what is returned of it by less, as a mean square; consecutive iterates never come
            as near to one another, as each sees G through another transform. None goes on to the
            last iteration.
        average: what is recorded and returned is the mean of the last eight iterates. With long
            steps the ensemble makes them go round the zero, which the mean is nearer to.
        x0: where it begins, see `start`.
    """

    G: Gradient
    solver: Solver[Any]
    s: float
    iterations: int = paper.ITERATIONS
    ensemble: bool = True
    tile_above: int | None = None
    tolerance: float | None = None
    average: bool = False
    x0: Start = "released"

    @property
    def recorded(self) -> int:
        """How many iterates `restore` shows."""
        return self.iterations

    @torch.no_grad()
    def restore(self, seen: Observation, record: Record) -> Tensor:
        """Run from the start and return the last iterate, neither clamped nor projected."""
        D = DataGradient(seen.problem.A, seen.y)
        return self._descend(D, self.s, start(seen, self.x0), record)

    @torch.no_grad()
    def residual(self, seen: Observation, x: Tensor) -> Tensor:
        """Root mean square of D(x) + s^2 G(x) of each image, (B,): 0 at the fixed points of g.

        Without the ensemble, whose mean over the eight transforms the iterates go to.
        """
        F = RegularizedGradient(self._gradient, DataGradient(seen.problem.A, seen.y), self.s)
        return root_mean_square(F(x)).flatten()

    @property
    def _gradient(self) -> Gradient:
        return self.G if self.tile_above is None else Tiled(self.G, self.tile_above)

    def alike(self, other: object) -> bool:
        """Whether images of both may share a batch: s alone differs."""
        return isinstance(other, GradientDescent) and replace(other, s=self.s) == self

    def together(
        self, methods: Sequence[GradientDescent], seen: Sequence[Observation], record: Record
    ) -> Tensor:
        """`restore_together`, of methods that are `alike` this one."""
        return restore_together(methods, seen, record)

    def _descend(
        self, D: DataGradient | SideBySide, s: float | Tensor, x0: Tensor, record: Record
    ) -> Tensor:
        G = self._gradient
        F = RegularizedGradient(G, D, s)
        x, state = x0, self.solver.init(F, x0)
        shown, active, a_round_ago = x0, torch.arange(len(x0), device=x0.device), x0
        latest: deque[Tensor] = deque(maxlen=len(DIHEDRAL))
        for i in range(self.iterations - 1):
            record(shown)
            if len(active) == 0:
                continue
            rotated = replace(F, G=RotatingGradient(G, DIHEDRAL[i % 8 if self.ensemble else 0]))
            x, state = self.solver.step(rotated, x, state)
            latest.append(x)
            found = torch.stack(tuple(latest)).mean(dim=0) if self.average else x
            shown = found if len(x) == len(x0) else shown.index_copy(0, active, found)
            if self.tolerance is not None and i % 8 == 7:
                moved = (found - a_round_ago).square().mean(dim=(1, 2, 3))
                keep = (moved >= self.tolerance).nonzero().flatten()
                if len(keep) < len(active):
                    x, active, found = x[keep], active[keep], found[keep]
                    F, state = F.select(keep), self.solver.select(state, keep)
                    latest = deque((one[keep] for one in latest), maxlen=len(DIHEDRAL))
                a_round_ago = found
        record(shown)
        return shown


@torch.no_grad()
def restore_together(
    methods: Sequence[GradientDescent], seen: Sequence[Observation], record: Record
) -> Tensor:
    """Restore images of the same size in one batch, each by its own method from its observation.

    The methods are `GradientDescent.alike`. The result, and what ``record`` is shown, are
    (B, 3, H, W) in the order of the observations.
    """
    D = SideBySide(tuple(DataGradient(one.problem.A, one.y) for one in seen))
    starts = zip(methods, seen, strict=True)
    x0 = torch.cat([start(one, method.x0) for method, one in starts])
    s = x0.new_tensor([method.s for method in methods]).view(-1, 1, 1, 1)
    return methods[0]._descend(D, s, x0, record)


@dataclass(frozen=True)
class ADMMSchedule:
    """The denoiser's strength over the iterations of PnP-ADMM, std on [0, 1].

    Attributes:
        iterations: N.
        sigma_first: of the first denoising.
        sigma_last: of the last one.
        sigma_min: stands for the noise level where it is smaller.
    """

    iterations: int
    sigma_first: float
    sigma_last: float
    sigma_min: float


@dataclass(frozen=True)
class PnPADMM:
    """Plug-and-play ADMM with the denoiser P and a growing penalty, as LEPENDUM/pnp."""

    P: Denoiser
    schedule: ADMMSchedule
    ensemble: bool = True
    x0: Start = "released"  # see `start`

    @property
    def recorded(self) -> int:
        """How many iterates `restore` shows."""
        return self.schedule.iterations + 1

    @torch.no_grad()
    def restore(self, seen: Observation, record: Record) -> Tensor:
        """Run from the start and return the last output of P, (B, 3, H, W)."""
        A, y, plan = seen.problem.A, seen.y, self.schedule
        w = max(seen.problem.sigma, plan.sigma_min)
        rho = (w / plan.sigma_first) ** 2
        growth = (plan.sigma_first / plan.sigma_last) ** (2 / max(plan.iterations - 1, 1))
        x, dual = start(seen, self.x0), torch.zeros_like(seen.x0)
        record(x)
        for i in range(plan.iterations):
            v = A.prox(x - dual / rho, y, rho)
            transform = DIHEDRAL[i % 8 if self.ensemble else 0]
            noisy = transform(v + dual / rho)
            x = transform.inverse(self.P(noisy, w / rho**0.5))
            x = keep_known_pixels(x, seen)
            record(x)
            dual = dual + rho * (v - x)
            rho = rho * growth
        return x


def keep_known_pixels(x: Tensor, seen: Observation) -> Tensor:
    """Noiseless completion: the denoiser never changes known pixels. Else x as it is."""
    A = seen.problem.A
    if isinstance(A, Mask) and seen.problem.sigma == 0:
        return torch.where(A.mask.bool(), seen.y, x)
    return x
