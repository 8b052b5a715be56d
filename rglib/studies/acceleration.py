"""The accelerated solver beside the paper's on the way to x_g in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from rglib.core.fixed_point import Adam, Outcome, SemiImplicit, StoppingRule, solve, solver_named
from rglib.core.maps import Gradient, RegularizedGradient
from rglib.core.problems import DataGradient, TrainingDistribution
from rglib.data.images import CropSampler
from rglib.plan.acceleration import SOLVERS
from rglib.progress import progress
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.training.objectives.equilibrium import drawn
from rglib.training.objectives.losses import Batch

Config = Mapping[str, Any]

CALLS_BEFORE = {  # the first step, by solver, of a height and a width
    "adam": Adam(lr=1.0).calls_before_first_step,
    "semi_implicit": SemiImplicit().calls_before_first_step,
}

COLUMNS = {
    "method": COLUMN_DESCRIPTIONS["method"],
    "solver": "adam, as in the paper, or semi_implicit",
    "step": "of training, whose batch and problem are taken; the same for all methods and solvers",
    "sigma": "noise level of the problem, on [0, 1]",
    "images": "number of images in the batch",
    "converged": "share of them whose iterations converged by the paper's rule, on [0, 1]",
    "diverged": "share of them with an entry over the guard or not finite, on [0, 1]",
    "calls": "evaluations of G for an image in the mean, in whole images, those before the first "
    "step included",
}


def compare_solvers(
    G: Gradient,
    crops: CropSampler,
    *,
    batches: int,
    max_iterations: int,
    shared: Config,
    device: torch.device,
    note: str,
) -> pd.DataFrame:
    """Look for x_g of the first batches of a training with both solvers.

    Args:
        G: the regularizing gradient.
        crops: the images of each step, and the seed of its problem.
        batches: how many steps.
        max_iterations: of each solver.
        shared: the sections ``equilibrium`` (for Adam's rate, the stopping rule and the starting
            point) and ``training_problems``.
        device: where to compute.
        note: what the progress is called.

    Returns:
        A row for each step and solver, with `COLUMNS` but for the method.
    """
    settings = shared["equilibrium"]
    distribution = TrainingDistribution.of(shared["training_problems"])
    stop = StoppingRule.of({**settings, "max_iterations": max_iterations})
    solvers = {name: solver_named(name, lr=settings["eta_gd"]) for name in SOLVERS}
    rows = []
    with progress(note, total=batches * len(solvers), unit="batch") as advance:
        for step in range(batches):
            x_hat = torch.from_numpy(crops.crops(step)).to(device).float() / 255
            randomness = Batch(x_hat, step, crops.seed).randomness
            seen = drawn(distribution, x_hat, randomness, x0=settings["x0"])
            sigma = seen.problem.sigma
            gradient = RegularizedGradient(G, DataGradient(seen.problem.A, seen.y), sigma)
            for name, solver in solvers.items():
                found = solve(solver, gradient, seen.x0, stop)
                steps = found.iterations.float().mean().item()
                row = {
                    "solver": name,
                    "step": step,
                    "sigma": sigma,
                    "images": len(x_hat),
                    "converged": found.share(Outcome.CONVERGED),
                    "diverged": found.share(Outcome.DIVERGED) + found.share(Outcome.NON_FINITE),
                    "calls": steps + CALLS_BEFORE[name](*x_hat.shape[-2:]),
                }
                rows.append(row)
                advance()
    return pd.DataFrame(rows)
