"""The operators and P beside those of deepinv, which shares no code with rglib.

deepinv is no dependency: its torchvision must be built for the very PyTorch that is installed.
These tests are skipped where it cannot be imported. They pass with deepinv 0.4.1 to 0.5.0.
"""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rglib.__main__ import main
from rglib.core.networks import ProximalOperator
from rglib.core.operators import Blur, Downsample, Mask, downsampling_taps

try:
    import deepinv
except Exception as error:  # a torchvision for another PyTorch raises RuntimeError
    reason = f"deepinv cannot be imported ({type(error).__name__}: {error})"
    pytest.skip(reason, allow_module_level=True)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def lopsided_kernel():
    kernel = random(5, 3, seed=7).double()
    return kernel / kernel.sum()


def gaussian_kernel_of_deepinv(sigma_b):
    kernels = deepinv.physics.functional.gaussian_blur(
        psf_size=(25, 25), sigma=(sigma_b, sigma_b), dtype=torch.float64
    )
    return kernels[0, 0]


def convolution_kernel(taps, first):
    """The 1-D kernel with which a convolution centred on its middle tap applies our taps.

    Ours is a correlation, out[i] = sum_j k_j x[f i + first + j], not centred on pixel f i. Theirs
    is a convolution, out[i] = sum_m h_m x[f i + middle - m]. So h_m = k_j for m = middle - first
    - j: the taps mirrored, with zeros at one end that bring offset 0 to the middle.
    """
    middle = max(-first, first + len(taps) - 1)
    kernel = torch.zeros(2 * middle + 1, dtype=torch.float64)
    kernel[middle - first - torch.arange(len(taps))] = taps
    return kernel


# --- the same operator twice: ours in float32, theirs in float64 ----------------------------------
# Theirs in float64, since their prox divides by rho: float32 would lose more digits than compared.


def masks(images, channels, height, width):
    mask = (random(images, channels, height, width, seed=1) > 0.7).float()
    return Mask(mask), deepinv.physics.Inpainting((3, height, width), mask=mask.double())


def gaussian_blurs(sigma_b, height, width):
    kernel = gaussian_kernel_of_deepinv(sigma_b)  # not ours: the kernels are compared as well
    theirs = deepinv.physics.BlurFFT((3, height, width), filter=kernel[None, None])
    return Blur.gaussian(sigma_b, height=height, width=width), theirs


def lopsided_blurs(height, width):
    kernel = lopsided_kernel()
    theirs = deepinv.physics.BlurFFT((3, height, width), filter=kernel[None, None])
    return Blur.from_kernel(kernel, height=height, width=width), theirs


def lopsided_blurs_without_fourier(height, width):
    kernel = lopsided_kernel()
    theirs = deepinv.physics.Blur(filter=kernel[None, None], padding="circular")
    return Blur.from_kernel(kernel, height=height, width=width), theirs


def downsamplings(factor, kernel, height, width):
    profile = convolution_kernel(*downsampling_taps(factor, kernel=kernel))
    theirs = deepinv.physics.Downsampling(
        img_size=(3, height, width),
        filter=(profile[:, None] * profile)[None, None],
        factor=factor,
        padding="circular",
    )
    return Downsample.by(factor, kernel=kernel, height=height, width=width), theirs


# name -> (smallest side, factor, function of batch, height and width);
# on a smaller image than that our kernels wrap onto themselves, which theirs cannot
PAIRS = {
    "a mask per image": (1, 1, lambda b, h, w: masks(b, 1, h, w)),
    "a mask per channel": (1, 1, lambda b, h, w: masks(b, 3, h, w)),
    "one mask": (1, 1, lambda b, h, w: masks(1, 1, h, w)),
    "blur 1.6": (25, 1, lambda b, h, w: gaussian_blurs(1.6, h, w)),
    "blur 2": (25, 1, lambda b, h, w: gaussian_blurs(2.0, h, w)),
    "lopsided": (5, 1, lambda b, h, w: lopsided_blurs(h, w)),
    "lopsided without Fourier": (5, 1, lambda b, h, w: lopsided_blurs_without_fourier(h, w)),
    **{
        f"x{f} {k}": (smallest, f, lambda b, h, w, f=f, k=k: downsamplings(f, k, h, w))
        for f, smallest in ((2, 9), (3, 13), (4, 19))
        for k in ("bicubic", "gaussian")
    },
}
WITH_CLOSED_FORM = [name for name in PAIRS if name != "lopsided without Fourier"]
WITHOUT_MASK = [name for name in PAIRS if "mask" not in name]


@st.composite
def cases(draw, name, divisible=False):
    """The two operators of this name with an image u and an observation y, of any size."""
    smallest, factor, make = PAIRS[name]
    step = factor if divisible else 1
    side = st.integers(-(-smallest // step), (smallest + 13) // step).map(lambda n: n * step)
    batch, height, width, seed = (
        draw(s) for s in (st.integers(1, 3), side, side, st.integers(0, 2**31))
    )
    ours, theirs = make(batch, height, width)
    u = random(batch, 3, height, width, seed=seed)
    y = ours(random(*u.shape, seed=seed + 1))
    return ours, theirs, u, y + random(*y.shape, seed=seed + 2) / 9


def for_each_pair(names=PAIRS):
    """Run a test(data, name) on examples of these pairs."""

    def decorate(test):
        test = settings(max_examples=6)(given(data=st.data())(test))
        return pytest.mark.parametrize("name", names)(test)

    return decorate


def assert_agree(ours, theirs, tolerance):
    """Equal at every pixel up to a share of the largest absolute value."""
    largest = theirs.abs().max().item()
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=0, atol=tolerance * largest)


rhos = st.floats(-5, 1).map(lambda exponent: 10**exponent)


@for_each_pair()
def test_the_operators_agree(name, data):
    ours, theirs, x, _ = data.draw(cases(name))
    assert_agree(ours(x), theirs.A(x.double()), 2e-6)


@for_each_pair()
def test_the_adjoints_agree(name, data):
    ours, theirs, _, y = data.draw(cases(name))
    assert_agree(ours.adjoint(y), theirs.A_adjoint(y.double()), 2e-6)


@for_each_pair(WITH_CLOSED_FORM)
def test_the_prox_agrees_with_their_closed_form(name, data):
    # theirs weighs the data term by gamma, not the distance by rho, and needs divisible sizes
    ours, theirs, u, y = data.draw(cases(name, divisible=True))
    rho = data.draw(rhos)
    expected = theirs.prox_l2(u.double(), y.double(), 1 / rho)
    assert_agree(ours.prox(u, y, rho), expected, 1e-5)


@for_each_pair(WITHOUT_MASK)
def test_the_prox_agrees_with_least_squares(name, data):
    # LSQR knows only A and A^T, so any size will do. No masks: theirs (0.5.0) returns u for the
    # whole batch if u is the solution for one image, as it is where a mask hides all of it
    ours, theirs, u, y = data.draw(cases(name))
    rho = data.draw(rhos)
    expected = deepinv.physics.LinearPhysics.prox_l2(
        theirs, u.double(), y.double(), 1 / rho, solver="lsqr", max_iter=2000, tol=1e-9
    )
    assert_agree(ours.prox(u, y, rho), expected, 1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_the_squared_norms_agree(name):
    smallest, _, make = PAIRS[name]
    height, width = smallest + 3, smallest + 6
    ours, theirs = make(1, height, width)
    torch.manual_seed(0)  # of their power method, which ends a little below the norm
    start = torch.zeros(1, 3, height, width, dtype=torch.float64)
    found = theirs.compute_sqnorm(start, max_iter=2000, tol=1e-7, verbose=False).item()
    assert ours.squared_norm == pytest.approx(found, rel=2e-3)


# --- P --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def denoisers():
    """P and their DRUNet, both of the paper's size and with the same weights."""
    torch.manual_seed(0)
    ours = ProximalOperator()
    theirs = deepinv.models.DRUNet(in_channels=3, out_channels=3, pretrained=None)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


# On multiples of 16 nobody pads, and below 32 both pad to them; on other multiples of 8 only we do.
@pytest.mark.parametrize("size", [(32, 48), (64, 32), (21, 50)])
@torch.no_grad()
def test_the_denoisers_agree(denoisers, size):
    ours, theirs = denoisers
    z, sigma = random(2, 3, *size, seed=1), 0.2 * random(2, seed=2)
    assert_agree(ours(z, sigma), theirs(z, sigma), 1e-5)
    one = sigma[0].item()
    assert_agree(ours(z, one), theirs(z, one), 1e-5)


# --- the conformance kit --------------------------------------------------------------------------


def test_their_operators_pass_the_conformance_kit(monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["conform", "examples.conform_deepinv:Operators", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    agreeing = {one["check"] for one in found if one["status"] == "agrees"}
    assert agreeing == {
        "kernel",
        "forward",
        "adjoint",
        "data_gradient",
        "prox",
        "proximal_operator",
        "psnr",
    }
