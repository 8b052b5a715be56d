import math

import pytest
import torch

from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, TrainingDistribution, observe_image
from rglib.restoration.evaluation import GroundTruth
from rglib.studies.at_zeros import HELD_OUT, psnr_at_zeros

CONFIG = {
    "evaluation": {
        "solver": "semi_implicit",
        "iterations": 400,
        "tolerance": None,
        "average": True,
        "ensemble": True,
        "tile_above": None,
    },
    "problems": {id: {"lr": 0.01, "s_255": 10.0} for id in PROBLEMS},
}


def images(count=2):
    return [
        GroundTruth(str(i), torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(i)))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def reached():
    return psnr_at_zeros(
        lambda x: 5 * x,
        images(),
        config=CONFIG,
        distribution=TrainingDistribution(sigma_min=0.05, sigma_max=0.05),
        draws=2,
        device=torch.device("cpu"),
    )


def test_completion_is_at_the_zero_in_closed_form(reached):
    """x = m y / (m + s^2 5), with the mask of each image."""
    s, expected = 10 / 255, []
    for i, image in enumerate(images()):
        seen = observe_image(PROBLEMS["completion80"], image.pixels, seed=i)
        m = seen.problem.A.mask
        expected.append(psnr(m * seen.y / (m + 5 * s**2), seen.x_hat).item())
    assert reached["completion80"] == pytest.approx(sum(expected) / 2, abs=1e-3)


def test_all_problems_and_the_held_out_draws_are_there(reached):
    assert list(reached) == [*PROBLEMS, HELD_OUT]
    assert all(map(math.isfinite, reached.values()))


def test_without_draws_there_is_no_figure_of_them():
    found = psnr_at_zeros(
        lambda x: x,
        images(1),
        config=CONFIG | {"evaluation": CONFIG["evaluation"] | {"iterations": 2}},
        distribution=TrainingDistribution(),
        draws=0,
        device=torch.device("cpu"),
    )
    assert HELD_OUT not in found
