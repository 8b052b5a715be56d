"""What each part of the training at fixed points brings: copies of a stage, trained side by side.

Every copy starts from the same network, has so many minutes of one core, and is looked at on the
way: the mean PSNR at the zeros on validation images, over minutes and over calls of G. Minutes are
of the processor and not of the clock, so that other work on the machine counts for nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from rglib.core.networks import DRUNet, for_inference
from rglib.core.problems import TrainingDistribution
from rglib.progress import progress
from rglib.restoration.evaluation import GroundTruth
from rglib.studies.at_zeros import psnr_at_zeros
from rglib.training.trainer import Trainer

Config = Mapping[str, Any]

COLUMNS = {
    "variant": "what was trained; the configuration's section fixed_points says how",
    "seed": "of everything random in the training",
    "minutes": "of one core, that the training had",
    "updates": "of the network until then",
    "calls": "evaluations of G until then, those in the updates included, for an image in the mean",
    "problem_id": "id of the restoration problem; held_out: problems drawn as in training",
    "psnr_db": "PSNR at the zeros in dB, mean over the validation images",
}


class Calls:
    """Counts how many images a network was applied to, of a batch of so many: its calls."""

    def __init__(self, network: nn.Module, *, batch: int) -> None:
        self.batch = batch
        self.images = 0
        network.register_forward_hook(self._add)

    @property
    def count(self) -> float:
        """Calls so far, for an image in the mean."""
        return self.images / self.batch

    def _add(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.images += len(output)


def train_and_look(
    run: Trainer,
    images: Sequence[GroundTruth],
    *,
    minutes: Sequence[float],
    config: Config,
    draws: int,
    arithmetic: torch.dtype,
    note: str,
) -> pd.DataFrame:
    """Train for the minutes of one core and look at the average of the weights after each of them.

    Args:
        run: the trainer of a stage that learns G, at its start; nothing of it is written.
        images: as for `rglib.studies.at_zeros.psnr_at_zeros`, as are ``config`` and ``draws``.
        minutes: when to look, rising; 0 looks at the start.
        config: see above, with ``training_problems``, from which all variants are held out draws.
        draws: see above.
        arithmetic: inside G at the zeros.
        note: what the progress is called.

    Returns:
        A row for each look and problem, with `COLUMNS` but for the variant and the seed.
    """
    calls = Calls(run.networks["G"], batch=len(run.batch().x_hat))
    used, looks = 0.0, []
    with progress(note, total=len(minutes), unit="look") as advance:
        for limit in minutes:
            while used < 60 * limit:
                began = time.process_time()
                run.update(run.batch())
                used += time.process_time() - began
                run.seconds = used  # which the rate follows
            reached = psnr_at_zeros(
                averaged(run, "G", arithmetic=arithmetic),
                images,
                config=config,
                distribution=TrainingDistribution.of(config["training_problems"]),
                draws=draws,
                device=run.device,
            )
            at = {"minutes": limit, "updates": run.step, "calls": calls.count}
            looks += [{**at, "problem_id": id, "psnr_db": value} for id, value in reached.items()]
            advance()
    return pd.DataFrame(looks)


def averaged(run: Trainer, role: str, *, arithmetic: torch.dtype) -> nn.Module:
    """A network of a trainer as it would end now, ready for inference; the training goes on."""
    network = copy.deepcopy(run.networks[role])
    network.load_state_dict(run.result()[role])
    if isinstance(network, DRUNet):
        network.arithmetic = arithmetic
    return for_inference(network, run.device)
