"""bfloat16 inside the network does not change what gradient descent finds."""

from pathlib import Path

import pytest
import torch
from skimage import data

from rglib.core.fixed_point import slope
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, SeededImage, observe
from rglib.core.tensors import to_tensor
from rglib.restoration.prior import load

WEIGHTS = Path(__file__).parent.parent / "weights"
ALLOWED_DB = 0.01


@pytest.fixture(scope="module")
def photographs():
    """Three crops (3, 3, 64, 64) of photographs that no network was trained on."""
    crops = data.astronaut()[40:104, 170:234], data.chelsea()[60:124, 100:164], data.coffee()
    return torch.cat([to_tensor(crop[:64, :64].copy()) for crop in crops])


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["completion80", "deblur_s1.6", "sr2_gaussian_n0.01"])
@pytest.mark.parametrize("method", ["deqgd", "rerg"])
def test_bfloat16_restores_within_a_hundredth_of_a_decibel(method, problem, photographs):
    seen = observe(PROBLEMS[problem], photographs, SeededImage())
    reached = {}
    for precision in ("float32", "bfloat16"):
        prior = load(method, models=WEIGHTS, precision=precision)
        prior = prior.adjusted(solver="semi_implicit")  # no image ends early
        restored = prior.method(seen.problem, like=problem).restore(seen, lambda _: None)
        reached[precision] = psnr(restored, photographs).mean().item()
    assert reached["bfloat16"] == pytest.approx(reached["float32"], abs=ALLOWED_DB)
    start = psnr(seen.x0, photographs).mean().item()
    assert reached["float32"] > start + 0.5  # it is a restoration that is compared


@pytest.mark.parametrize("method", ["pnpreg", "rg1", "deqgd", "rerg"])
def test_the_slope_that_sets_the_step_is_the_same_in_bfloat16(method, photographs):
    exact, low = (
        slope(load(method, models=WEIGHTS, precision=precision).network, photographs)
        for precision in ("float32", "bfloat16")
    )
    torch.testing.assert_close(low, exact, rtol=0.05, atol=0)
