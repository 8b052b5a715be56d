import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rglib.core.operators import Downsample, Mask
from rglib.core.theorem import Sides

SHAPE = (3, 4, 4)
SIGMA, ETA = 0.8, 0.49


@pytest.fixture(scope="module")
def setting(linear_prior, dense):
    """A linear prior and, per operator, its matrix."""
    mask = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    operators = (Mask(mask.float()), Downsample.by(2, kernel="bicubic", height=4, width=4))
    return linear_prior(48), [dense(A, SHAPE) for A in operators]


def sides(prior, matrix, perturbation, seed):
    """Both of (18) for each image, with G(x) = (Q + E) x, the exact x_f, x_g and L_g."""
    generator = torch.Generator().manual_seed(seed)
    x_hat = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    y = x_hat.flatten(1) @ matrix.T
    y = y + SIGMA * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    E = torch.randn(prior.Q.shape, generator=generator, dtype=torch.float64)
    Q = prior.Q + perturbation * E / torch.linalg.matrix_norm(E, 2)
    hessian = matrix.T @ matrix + SIGMA**2 * Q
    x_g = torch.linalg.solve(hessian, matrix.T @ y.T).T
    x_f = prior.minimiser(matrix, y, SIGMA)
    contraction = torch.linalg.matrix_norm(torch.eye(48) - ETA * hessian, 2).item()
    D = (x_f @ matrix.T - y) @ matrix
    link = (ETA * SIGMA**2 * x_f @ Q.T + ETA * D).square().sum(dim=1)  # eq. (20)
    truth = x_hat.flatten(1)
    return [
        Sides(distance_g=left, distance_f=distance_f, link=link_loss, contraction=contraction)
        for left, distance_f, link_loss in zip(
            (x_g - truth).norm(dim=1).tolist(),
            (x_f - truth).norm(dim=1).tolist(),
            link.tolist(),
            strict=True,
        )
    ]


@given(st.floats(0, 0.9), st.integers(0, 2**31), st.integers(0, 1))
@settings(max_examples=60)
def test_theorem_1_holds_for_a_perturbed_linear_prior(setting, perturbation, seed, which):
    prior, matrices = setting
    for image in sides(prior, matrices[which], perturbation, seed):
        assert image.contraction < 1
        assert image.distance_g <= image.bound_18 + 1e-12


def test_theorem_1_is_an_equality_where_g_and_p_are_linked(setting):
    prior, matrices = setting
    for image in sides(prior, matrices[0], 0.0, seed=0):
        assert image.distance_g == pytest.approx(image.bound_18)


def test_the_bound_is_within_tenfold_of_the_error_so_that_it_is_not_vacuous(setting):
    prior, matrices = setting
    for image in sides(prior, matrices[0], 0.9, seed=0):
        assert image.tightness_18 < 10
