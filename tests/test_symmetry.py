"""The asymmetry of matrices that are known, and zeros that can be counted."""

import math

import pytest
import torch
from torch.nn import functional

from rglib.core.operators import Blur
from rglib.core.problems import KernelBlur, Observation, Problem, SeededImage, observe
from rglib.restoration.evaluation import GroundTruth
from rglib.studies.symmetry import (
    COLUMNS,
    SAME,
    Study,
    asymmetry,
    distinct,
    numbers_of_all,
    numbers_of_image,
    starts_of,
)

SHAPE = (1, 3, 6, 5)
ENTRIES = 90
STUDY = Study(crop=32, images=1, probes=16, starts=16, iterations=2000, tolerance=1e-14)


def linear(matrix):
    return lambda x: (x.flatten(1) @ matrix.T).view(x.shape)


def random_matrix(seed=0):
    return torch.randn(ENTRIES, ENTRIES, generator=torch.Generator().manual_seed(seed)).double()


def image(seed=1):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)).double()


# --- the Jacobian ---------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [0.0, 0.05, 0.3, 1.0])
def test_the_asymmetry_of_a_matrix_is_that_of_its_norms(skew):
    M = random_matrix()
    J = (M + M.T) / 2 + skew * (M - M.T) / 2
    exact = (torch.linalg.norm(J - J.T) / torch.linalg.norm(J + J.T)).item()
    assert asymmetry(linear(J), image(), probes=64) == pytest.approx(exact, rel=0.1, abs=1e-12)


def test_it_is_one_for_independent_entries_and_infinite_for_a_skew_matrix():
    M = random_matrix(2)
    assert asymmetry(linear(M), image(), probes=64) == pytest.approx(1, rel=0.1)
    assert asymmetry(linear(M - M.T), image(), probes=4) > 1e6
    assert asymmetry(lambda x: 0 * x, image(), probes=1) == math.inf


def test_the_gradient_of_a_function_has_none_and_a_network_has():
    """By autograd, of the square of a network that is no gradient itself."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 3, 3, 3, generator=generator).double() / 5

    def N(x):
        return functional.softplus(functional.conv2d(x, weights, padding=1))

    def gradient(x):
        return torch.func.grad(lambda z: N(z).square().sum() / 2)(x)

    assert asymmetry(gradient, image(), probes=8) < 1e-12
    assert asymmetry(N, image(), probes=8) > 0.5


# --- zeros ----------------------------------------------------------------------------------------


def seen_through(problem):
    """An observation of 32x32 pixels."""
    x_hat = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return observe(problem, x_hat, SeededImage(0))


def test_a_convex_regularizer_has_one_zero_and_it_is_the_exact_one():
    """R = 1/2 ||x - 1/2||^2, so that the zero is known by division in Fourier space."""
    seen = seen_through(KernelBlur(torch.tensor([[0.2, 0.5, 0.3]]), sigma=0.0))
    s = 0.2
    row = numbers_of_image(lambda x: x - 0.5, seen, s=s, study=STUDY)
    assert row["converged"] == row["starts"] == 16 and row["zeros"] == 1
    assert row["spread"] < 1e-4 and row["residual"] < 1e-5
    assert max(row[f"asymmetry_{at}"] for at in ("truth", "start", "zero")) < 1e-6
    otf = seen.problem.A.otf
    right = torch.fft.rfft2(seen.y) * otf.conj() + s**2 * torch.fft.rfft2(
        torch.full_like(seen.y, 0.5)
    )
    exact = torch.fft.irfft2(right / (otf.abs().square() + s**2), s=(32, 32))
    error = -10 * torch.log10((exact - seen.x_hat).square().mean()).item()
    assert row["psnr_min_db"] == pytest.approx(error, abs=0.01)
    assert row["psnr_max_db"] == pytest.approx(error, abs=0.01)


def test_two_wells_have_several_zeros():
    """A gradient, of (x - 0.2)^2 (x - 0.8)^2, and no data term to speak of."""
    kernel = torch.tensor([[1.0]])
    x_hat = torch.full((1, 3, 32, 32), 0.2)
    seen = Observation(
        Problem(Blur.from_kernel(0.001 * kernel, height=32, width=32), 0.0), x_hat, x_hat, x_hat
    )

    def wells(x):
        return 20 * (x - 0.2) * (x - 0.8) * (2 * x - 1)

    row = numbers_of_image(wells, seen, s=1.0, study=STUDY)
    assert row["converged"] > 10 and row["zeros"] > 5 and row["spread"] > 0.1
    assert row["asymmetry_zero"] < 1e-6
    assert row["psnr_max_db"] - row["psnr_min_db"] > 3


def test_where_none_arrives_nothing_is_said_of_zeros():
    seen = seen_through(KernelBlur(torch.tensor([[0.2, 0.5, 0.3]]), sigma=0.0))
    row = numbers_of_image(
        lambda x: x - 0.5,
        seen,
        s=0.2,
        study=Study(crop=32, images=1, probes=1, starts=3, iterations=1, tolerance=1e-14),
    )
    assert row["converged"] == 0 and "zeros" not in row


def test_the_first_start_is_that_of_the_tables_and_the_others_are_apart():
    seen = seen_through(KernelBlur(torch.tensor([[1.0]]), sigma=0.1))
    starts = starts_of(seen, count=16)
    assert torch.equal(starts[:1], seen.x0) and torch.equal(starts, starts_of(seen, count=16))
    assert starts[1:].min() >= 0 and starts[1:].max() <= 1
    assert distinct(starts) == 16
    # from fine to coarse: neighbours are alike in cells of 16 pixels
    rough = (starts[..., 1:] - starts[..., :-1]).abs().mean(dim=(1, 2, 3))
    assert rough[2] < rough[1] / 4 and rough[1] < rough[3] / 2


def test_zeros_within_a_grey_level_are_one():
    x = torch.zeros(1, 3, 4, 4)
    assert distinct(torch.cat((x, x + 0.9 * SAME, x + 1.9 * SAME, x + 0.5))) == 3


def test_the_table_has_a_row_for_each_problem_and_image(tiny):
    images = [GroundTruth(name, torch.rand(1, 3, 40, 36)) for name in ("one", "two", "three")]
    study = Study(crop=32, images=2, probes=1, starts=2, iterations=2, tolerance=0.0)
    table = numbers_of_all(
        tiny("G"),
        images,
        weights={"completion80": 0.1, "sr3_bicubic_n0": 0.1},
        study=study,
        device=torch.device("cpu"),
    )
    assert ["method", *table.columns] == list(COLUMNS)
    assert list(table.image) == ["one", "two"] * 2
    assert (table.starts == 2).all() and (table.converged == 0).all() and table.zeros.isna().all()
    assert (table.asymmetry_truth > 0).all()
