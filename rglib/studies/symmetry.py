"""Is G a gradient? How far its Jacobian is from symmetric, and whether many starts find one zero.

The paper calls G the gradient of a regularizer, which it is if and only if its Jacobian J is
symmetric everywhere; nothing in its training asks for that. And if the regularizer were strictly
convex, D + s^2 G would have one zero, whatever the start.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from rglib.core.fixed_point import Outcome, SemiImplicit, StoppingRule, root_mean_square, solve
from rglib.core.maps import Gradient, RegularizedGradient
from rglib.core.metrics import psnr
from rglib.core.problems import DataGradient, Observation, SeededStep, observe_test_image
from rglib.core.tensors import centre
from rglib.progress import progress
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.restoration.evaluation import GroundTruth

LOGGER = logging.getLogger(__name__)

SAME = 1 / 255  # zeros that are nearer than this, as a root mean square, count as one
CELLS = (1, 4, 16)  # pixels of the random starts, in turn

Config = Mapping[str, Any]

COLUMNS = {
    "method": COLUMN_DESCRIPTIONS["method"],
    "problem_id": COLUMN_DESCRIPTIONS["problem_id"],
    "image": "name of the image of the test set, of which a centre crop is used",
    "asymmetry_truth": (
        "||J - J^T|| / ||J + J^T|| of the Jacobian J of G at the ground truth, Frobenius norms "
        "from random probes: 0 for a gradient, 1 for a matrix of independent entries"
    ),
    "asymmetry_start": "the same at the starting point of the tables",
    "asymmetry_zero": "the same where the iteration from there ended",
    "starts": "number of starts: that of the tables, then random images",
    "converged": "how many of them arrived within the iterations",
    "zeros": (
        "how many zeros of D + s^2 G they arrived at, where ones nearer to one another than 1/255 "
        "(root mean square) count as one; empty if none arrived"
    ),
    "spread": (
        "largest root mean square distance of one of these zeros from that of the first start that "
        "arrived, on [0, 1]"
    ),
    "residual": "largest root mean square of D + s^2 G among those that arrived",
    "psnr_min_db": "lowest PSNR of a zero",
    "psnr_max_db": "highest PSNR of a zero",
}


@dataclass(frozen=True)
class Study:
    """How much is looked at.

    Attributes:
        crop: side of the centre crops, pixels.
        images: of the test set, the first so many.
        probes: random vectors for the norms of the Jacobian.
        starts: for each problem, that of the tables among them.
        iterations: of semi_implicit from each start at most, without the ensemble.
        tolerance: a start has arrived once the mean square of a step is below it.
    """

    crop: int
    images: int
    probes: int
    starts: int
    iterations: int
    tolerance: float

    @staticmethod
    def of(section: Config) -> Study:
        """From the section ``symmetry`` of the configuration."""
        return Study(**section)


def asymmetry(G: Gradient, x: Tensor, *, probes: int, seed: int = 0) -> float:
    """||J - J^T|| / ||J + J^T|| of the Jacobian J of G at x (1, 3, H, W), in Frobenius norms.

    From random vectors v, E||M v||^2 being ||M||^2 (Hutchinson): with 16 of them and J of an image
    the ratio is right to some per cent. 0 for the gradient of a smooth function; infinite for a
    skew J.
    """
    pull_back = torch.func.vjp(G, x)[1]
    generator = torch.Generator().manual_seed(seed)
    skew = even = 0.0
    for _ in range(probes):
        v = torch.randn(x.shape, generator=generator).to(x)
        forward, backward = torch.func.jvp(G, (x,), (v,))[1], pull_back(v)[0]
        skew += (forward - backward).square().sum().item()
        even += (forward + backward).square().sum().item()
    return math.sqrt(skew / even) if even else math.inf


def starts_of(seen: Observation, *, count: int) -> Tensor:
    """Starting points (count, 3, H, W): x0, then random images on [0, 1], fine to coarse."""
    height, width = seen.x0.shape[-2:]
    images = [seen.x0]
    for k in range(1, count):
        cell = CELLS[k % len(CELLS)]
        coarse = SeededStep(0, k).uniform((1, 3, -(-height // cell), -(-width // cell)))
        image = functional.interpolate(coarse, scale_factor=cell, mode="nearest")
        images.append(image[..., :height, :width].to(seen.x0))
    return torch.cat(images)


def distinct(zeros: Tensor) -> int:
    """How many of zeros (B, 3, H, W) differ by more than `SAME` from all counted before."""
    kept: list[Tensor] = []
    for zero in zeros.split(1):
        if all(root_mean_square(zero - other).item() > SAME for other in kept):
            kept.append(zero)
    return len(kept)


@torch.no_grad()
def numbers_of_image(G: Gradient, seen: Observation, *, s: float, study: Study) -> dict[str, Any]:
    """The numbers of `COLUMNS` for one image."""
    x0 = starts_of(seen, count=study.starts)
    stop = StoppingRule(max_iterations=study.iterations, tolerance=study.tolerance)
    D = DataGradient(seen.problem.A, seen.y.expand(len(x0), -1, -1, -1))
    F = RegularizedGradient(G, D, s)
    found = solve(SemiImplicit(), F, x0, stop)
    arrived = found.outcome == int(Outcome.CONVERGED)
    at = {"truth": seen.x_hat, "start": seen.x0, "zero": found.x[:1]}
    row: dict[str, Any] = {
        f"asymmetry_{name}": asymmetry(G, x, probes=study.probes) for name, x in at.items()
    }
    row |= {"starts": len(x0), "converged": int(arrived.sum())}
    if not arrived.any():
        return row
    zeros = found.x[arrived]
    residual = F.select(arrived.nonzero().flatten())(zeros)
    quality = psnr(zeros, seen.x_hat.expand_as(zeros))
    return row | {
        "zeros": distinct(zeros),
        "spread": root_mean_square(zeros - zeros[:1]).max().item(),
        "residual": root_mean_square(residual).max().item(),
        "psnr_min_db": quality.min().item(),
        "psnr_max_db": quality.max().item(),
    }


def numbers_of_all(
    G: Gradient,
    images: Sequence[GroundTruth],
    *,
    weights: Mapping[str, float],
    study: Study,
    device: torch.device,
) -> pd.DataFrame:
    """`numbers_of_image` for every problem and image; ``weights`` are s by problem id."""
    rows = []
    chosen = images[: study.images]
    with progress("symmetry", total=len(weights) * len(chosen), unit="image") as advance:
        for problem_id, s in weights.items():
            for image in chosen:
                advance(0, note=f"{problem_id} {image.name}")
                crop = centre(image.pixels, study.crop)
                seen = observe_test_image(problem_id, crop).to(device)
                row = numbers_of_image(G, seen, s=s, study=study)
                rows.append({"problem_id": problem_id, "image": image.name} | row)
                LOGGER.info("%s", rows[-1])
                advance()
    return pd.DataFrame(rows).reindex(columns=[name for name in COLUMNS if name != "method"])
