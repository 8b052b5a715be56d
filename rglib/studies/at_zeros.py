"""What a G restores at the zeros of D + s^2 G: validation figures while it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rglib.core.algorithms import GradientDescent, restore_together
from rglib.core.fixed_point import SemiImplicit
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, Observation, TrainingDistribution, observe_image
from rglib.plan.fixed_point_variants import HELD_OUT
from rglib.restoration.evaluation import GroundTruth
from rglib.restoration.restorers import restorer
from rglib.training.objectives.equilibrium import drawn
from rglib.training.objectives.losses import Batch

Config = Mapping[str, Any]

FIRST_HELD_OUT_STEP = 10**9  # of the draws; no training comes so far


@torch.no_grad()
def psnr_at_zeros(
    G: nn.Module,
    images: Sequence[GroundTruth],
    *,
    config: Config,
    distribution: TrainingDistribution,
    draws: int,
    device: torch.device,
) -> dict[str, float]:
    """Mean PSNR (dB) by problem, and over problems drawn as in training as `HELD_OUT`.

    The first image has the mask and the noise of the tables, the others their own.

    Args:
        G: the regularizing gradient, ready for inference.
        images: validation images of one size that no problem crops.
        config: with ``evaluation``, whose solver should lead to the zeros, and ``problems``.
        distribution: what problems are drawn from.
        draws: how many; each is one for all images, and has its noise level as s.
        device: where to compute.
    """
    found = {}
    for problem, kind in PROBLEMS.items():
        method = restorer("gradient_descent", problem, G, config)
        assert isinstance(method, GradientDescent)
        seen = [
            observe_image(kind, image.pixels, seed=i).to(device) for i, image in enumerate(images)
        ]
        found[problem] = _mean_psnr(method, seen)
    x_hat = torch.cat([image.pixels for image in images]).to(device)
    of_draws = []
    for draw in range(draws):
        randomness = Batch(x_hat, FIRST_HELD_OUT_STEP + draw, seed=0).randomness
        together = drawn(distribution, x_hat, randomness, x0="test")
        method = GradientDescent(
            G,
            SemiImplicit(),
            s=together.problem.sigma,
            iterations=config["evaluation"]["iterations"],
            tolerance=config["evaluation"]["tolerance"],
            average=True,
        )
        x = method.restore(together, _unseen)
        of_draws.append(psnr(x, x_hat).mean().item())
    if of_draws:
        found[HELD_OUT] = sum(of_draws) / len(of_draws)
    return found


def _mean_psnr(method: GradientDescent, seen: Sequence[Observation]) -> float:
    x = restore_together([method] * len(seen), seen, _unseen)
    return psnr(x, torch.cat([one.x_hat for one in seen])).mean().item()


def _unseen(_: Tensor) -> None:
    """Nobody looks at the iterates."""
