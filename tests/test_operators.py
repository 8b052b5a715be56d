import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rglib.core.operators import (
    Blur,
    Downsample,
    Identity,
    Mask,
    downsampling_taps,
    gaussian_kernel,
)
from rglib.core.problems import Completion, DataGradient, SeededStep

# The first half; the rest is the mirror image
HALF_TAPS = {
    (2, "bicubic"): [-0.017578, -0.052734, 0.130859, 0.439453],
    (2, "gaussian"): [0.000873, 0.017529, 0.129522, 0.352077],
    (3, "bicubic"): [-0.018519, -0.037037, 0, 0.123457, 0.265432, 0.333333],
    (3, "gaussian"): [0.001028, 0.007599, 0.036001, 0.109361, 0.213006, 0.266012],
}
FIRST_OFFSET = {2: -3, 3: -4}
SCALES = [(factor, kernel) for factor in (1, 2, 3, 4) for kernel in ("bicubic", "gaussian")]


def released_taps(factor, kernel):
    half = HALF_TAPS[factor, kernel]
    return np.array(half + half[::-1][factor % 2 :])


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def lopsided_kernel(height=5, width=3):
    kernel = random(height, width, seed=7)
    return kernel / kernel.sum()


def single_pixel(height, width):
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 2, width // 3] = 1
    return Mask(mask)


# name -> (smallest side, function of batch, height and width)
OPERATORS = {
    "identity": (1, lambda b, h, w: Identity()),
    "masks": (1, lambda b, h, w: Mask((random(b, 1, h, w, seed=1) > 0.7).float())),
    "shared mask": (1, lambda b, h, w: Mask((random(1, 1, h, w, seed=1) > 0.7).float())),
    "single pixel": (1, lambda b, h, w: single_pixel(h, w)),
    "nothing dropped": (
        1,
        lambda b, h, w: Completion(1.0).operator((b, 3, h, w), SeededStep(0, 0)),
    ),
    "0.99 dropped": (1, lambda b, h, w: Completion(0.01).operator((b, 3, h, w), SeededStep(0, 0))),
    "blur 0": (25, lambda b, h, w: Blur.gaussian(0, height=h, width=w)),
    "blur 0.3": (25, lambda b, h, w: Blur.gaussian(0.3, height=h, width=w)),
    "blur 1.6": (25, lambda b, h, w: Blur.gaussian(1.6, height=h, width=w)),
    "blur 4": (25, lambda b, h, w: Blur.gaussian(4.0, height=h, width=w)),
    "lopsided": (5, lambda b, h, w: Blur.from_kernel(lopsided_kernel(), height=h, width=w)),
    **{
        f"x{f} {k}": (1, lambda b, h, w, f=f, k=k: Downsample.by(f, kernel=k, height=h, width=w))
        for f, k in SCALES
    },
}


@st.composite
def cases(draw, name):
    """An operator of this name with two images u, z and an observation y, of any size."""
    smallest, make = OPERATORS[name]
    side = st.integers(smallest, smallest + 13)
    batch, channels, height, width = (draw(s) for s in (st.integers(1, 3),) * 2 + (side, side))
    seed = draw(st.integers(0, 2**31))
    A = make(batch, height, width)
    u, z = (random(batch, channels, height, width, seed=seed + i) for i in range(2))
    return A, u, z, A(random(*u.shape, seed=seed + 2)) + random(*A(u).shape, seed=seed + 3) / 9


def for_each_operator(test):
    """Run a test(data, name) on examples of every operator."""
    test = settings(max_examples=6)(given(data=st.data())(test))
    return pytest.mark.parametrize("name", OPERATORS)(test)


def inner(a, b):
    return (a.double() * b.double()).sum().item()


def norm(a):
    return a.double().norm().item()


# --- identities that every operator obeys ---------------------------------------------------------


@for_each_operator
def test_the_adjoint_is_the_adjoint(name, data):
    A, x, _, y = data.draw(cases(name))
    assert A.adjoint(y).shape == x.shape
    assert abs(inner(A(x), y) - inner(x, A.adjoint(y))) <= 1e-6 * norm(x) * norm(y) + 1e-12


@for_each_operator
def test_the_data_gradient_is_the_gradient_of_the_data_term(name, data):
    A, _, z, y = data.draw(cases(name))
    z.requires_grad_()
    (expected,) = torch.autograd.grad(0.5 * (A(z) - y).square().sum(), z)
    torch.testing.assert_close(DataGradient(A, y)(z.detach()), expected, rtol=1e-5, atol=2e-6)


@for_each_operator
def test_the_prox_satisfies_its_optimality_condition(name, data, in_double):
    A, u, _, y = data.draw(cases(name))
    rho = 10 ** data.draw(st.floats(-5, 1))
    v = A.prox(u, y, rho).double()
    wide, u, y = in_double(A), u.double(), y.double()
    residual = wide.adjoint(wide(v) - y) + rho * (v - u)
    assert norm(residual) <= 1e-5 * (norm(wide.adjoint(y)) + rho * norm(u))


@for_each_operator
def test_images_can_be_selected(name, data):
    A, x, _, _ = data.draw(cases(name))
    some = torch.tensor(data.draw(st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=3)))
    torch.testing.assert_close(A.select(some)(x[some]), A(x)[some])


@pytest.mark.parametrize("name", OPERATORS)
def test_the_squared_norm_is_the_largest_eigenvalue_of_a_transposed_a(name, dense):
    smallest, make = OPERATORS[name]
    height, width = smallest, smallest + 3
    A = make(1, height, width)
    matrix = dense(A, (1, height, width))
    expected = torch.linalg.eigvalsh(matrix.T @ matrix).max().item()
    assert A.squared_norm == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_move_to_a_device_with_all_they_hold(name):
    smallest, make = OPERATORS[name]
    A = make(2, smallest + 5, smallest + 2)
    x = random(2, 3, smallest + 5, smallest + 2)
    there = A.to("meta")
    assert there.adjoint(there(x.to("meta"))).shape == x.shape
    torch.testing.assert_close(A.to("cpu")(x), A(x))


# --- figures of the released code -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (Downsample.by(2, kernel="bicubic", height=96, width=96), 0.267),
        (Downsample.by(2, kernel="gaussian", height=96, width=96), 0.250),
        (Downsample.by(3, kernel="bicubic", height=96, width=96), 0.118),
        (Downsample.by(3, kernel="gaussian", height=96, width=96), 0.111),
        (Blur.gaussian(1.6, height=96, width=96), 1),
        (Blur.gaussian(2.0, height=96, width=96), 1),
        (Mask((random(1, 1, 96, 96) > 0.8).float()), 1),
    ],
)
def test_squared_norms_of_the_paper_problems(A, expected):
    assert A.squared_norm == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("factor", "kernel"), HALF_TAPS)
def test_taps_and_offsets_are_those_of_the_released_code(factor, kernel):
    taps, first = downsampling_taps(factor, kernel=kernel)
    assert first == FIRST_OFFSET[factor]
    np.testing.assert_allclose(taps, released_taps(factor, kernel), atol=6e-7)


@pytest.mark.parametrize(("factor", "kernel"), HALF_TAPS)
@pytest.mark.parametrize("size", [6, 12, 13, 17])
def test_downsampling_equals_a_loop_over_the_taps(factor, kernel, size):
    taps, first = released_taps(factor, kernel), FIRST_OFFSET[factor]

    def along(x):  # out[i] = sum_j k_j x[f i + j - c], circular, along the first axis
        starts = range(0, len(x), factor)
        return np.array(
            [sum(k * x[(i + first + j) % len(x)] for j, k in enumerate(taps)) for i in starts]
        )

    x = random(size, size + 3)
    A = Downsample.by(factor, kernel=kernel, height=size, width=size + 3)
    expected = along(along(x.double().numpy()).T).T
    np.testing.assert_allclose(A(x[None, None])[0, 0], expected, atol=1e-5)


def test_downsampling_by_four_takes_sixteen_taps_about_one_and_a_half():
    taps, first = downsampling_taps(4, kernel="bicubic")
    taps = taps.numpy()
    offsets = np.arange(len(taps)) + first
    assert (first, len(taps)) == (-6, 16)
    assert np.dot(taps, offsets) == pytest.approx(1.5)
    np.testing.assert_allclose(taps, taps[::-1])


# --- blur -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (7, 9), (25, 25)])
@pytest.mark.parametrize("size", [(25, 25), (32, 27)])
def test_blur_equals_circular_convolution_by_scipy(shape, size):
    x, kernel = random(2, 3, *size), lopsided_kernel(*shape)
    blurred = Blur.from_kernel(kernel, height=size[0], width=size[1])(x)
    for plane, ours in zip(x.flatten(0, 1), blurred.flatten(0, 1), strict=True):
        expected = scipy.ndimage.convolve(plane.double().numpy(), kernel.double(), mode="wrap")
        np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("sigma_b", [0.1, 0.5, 1.6, 2.0, 4.0])
def test_gaussian_blur_equals_scipys_gaussian_filter(sigma_b):
    x = random(40, 33)
    expected = scipy.ndimage.gaussian_filter(x.double().numpy(), sigma_b, mode="wrap", radius=12)
    ours = Blur.gaussian(sigma_b, height=40, width=33)(x[None, None])[0, 0]
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_the_gaussian_kernel_sums_to_one():
    kernel = gaussian_kernel(1.6, size=25)
    assert kernel.shape == (25, 25)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
    assert (kernel[12, 13] / kernel[12, 12]).item() == pytest.approx(np.exp(-0.5 / 1.6**2))


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["bicubic", "gaussian"])
def test_degenerate_degradations_are_the_identity(kernel):
    x = random(1, 3, 26, 25)
    identities = (
        Blur.gaussian(0.0, height=26, width=25),
        Downsample.by(1, kernel=kernel, height=26, width=25),
        Completion(keep=1.0).operator(x.shape, SeededStep(0, 0)),
    )
    for A in identities:
        torch.testing.assert_close(A(x), x)


def test_a_single_known_pixel_is_pulled_to_its_observation_and_no_other_moves():
    A, u = single_pixel(9, 9), random(1, 3, 9, 9)
    v = A.prox(u, A(torch.ones_like(u)), 1e-5)
    known = A.mask.bool().expand_as(u)
    torch.testing.assert_close(v[known], torch.ones(3), atol=2e-5, rtol=0)
    assert torch.equal(v[~known], u[~known])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur.from_kernel(torch.ones(4, 3), height=9, width=9), "odd"),
        (lambda: Blur.from_kernel(torch.ones(3, 11), height=9, width=9), "does not fit"),
        (lambda: Blur.gaussian(1.6, height=24, width=64), "does not fit"),
        (lambda: Downsample.by(0, kernel="bicubic", height=9, width=9), "at least 1"),
        (lambda: Downsample.by(2, kernel="lanczos", height=9, width=9), "lanczos"),
        (lambda: Downsample.by(1, kernel="lanczos", height=9, width=9), "lanczos"),
    ],
)
def test_impossible_operators_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
