import pytest
import torch
from torch import Tensor

from rglib.core.spectrum import extreme_eigenvalues, rayleigh_quotient
from rglib.training.diagnostics import Health

SHAPE = (2, 3, 3, 2)
N = 36


def linear(matrix):
    return lambda x: (matrix @ x.flatten()).view(x.shape)


def with_eigenvalues(values):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(N, N, generator=generator)).Q
    return vectors @ torch.diag(values) @ vectors.T


def turned(matrix, amount):
    """The same symmetric part with a skew one added."""
    skew = torch.randn(N, N, generator=torch.Generator().manual_seed(1))
    return matrix + amount * (skew - skew.T)


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize(
    ("lowest", "highest"), [(-2.0, 1.0), (-0.5, 3.0), (0.5, 2.0), (-3.0, -1.0)]
)
def test_extreme_eigenvalues_are_those_of_the_symmetrised_jacobian(lowest, highest, skew):
    middle = torch.linspace(0.8 * lowest + 0.2 * highest, 0.2 * lowest + 0.8 * highest, N - 2)
    matrix = with_eigenvalues(torch.cat((torch.tensor([lowest, highest]), middle)))
    G = linear(turned(matrix, skew))
    found = extreme_eigenvalues(G, torch.rand(SHAPE), iterations=300)
    assert found == pytest.approx((lowest, highest), abs=1e-3)


def test_estimates_of_the_extremes_lie_within():
    G = linear(with_eigenvalues(torch.linspace(-1, 2, N)))
    lowest, highest = extreme_eigenvalues(G, torch.rand(SHAPE), iterations=3)
    assert -1 <= lowest < highest <= 2


def test_eigenvalues_are_of_the_jacobian_at_x():
    x = torch.full(SHAPE, 2.0)
    found = extreme_eigenvalues(lambda z: z**3 / 3, x, iterations=5)
    assert found == pytest.approx((4, 4), rel=1e-4)


def test_the_rayleigh_quotient_of_a_linear_map_is_its_quadratic_form():
    matrix = turned(with_eigenvalues(torch.linspace(-1, 2, N)), 1.0)
    x, n = torch.rand(2, *SHAPE)
    expected = (n.flatten() @ matrix @ n.flatten()) / n.square().sum()
    assert rayleigh_quotient(linear(matrix), x, n) == pytest.approx(expected.item(), rel=1e-4)


def test_the_monitor_judges_what_there_is_and_leaves_the_networks_alone(tiny):
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    health = Health(x_hat, steps=3)
    networks = {"P": tiny("P"), "G": tiny("G")}
    before = {r: [p.clone() for p in n.parameters()] for r, n in networks.items()}
    report = health(networks)
    assert set(health({"P": networks["P"]})) == {"psnr_denoised", "denoised"}
    pictures = {name: report[name] for name in ("denoised", "completed", "deblurred")}
    numbers = {name: value for name, value in report.items() if name not in pictures}
    assert set(numbers) == {
        "psnr_denoised",
        "rayleigh_clean",
        "rayleigh_noisy",
        "eigenvalue_min",
        "eigenvalue_max",
        "psnr_completed",
        "psnr_deblurred",
    }
    again = health(networks)  # no randomness of its own
    assert {name: again[name] for name in numbers} == numbers
    assert all(torch.equal(again[name], picture) for name, picture in pictures.items())
    assert all(p.grad is None for n in networks.values() for p in n.parameters())
    for role, network in networks.items():
        assert all(map(torch.equal, before[role], network.parameters()))


def test_the_monitors_figures_are_those_of_a_known_g():
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    report = Health(x_hat, steps=3)({"G": lambda x: 2.5 * x, "P": lambda z, sigma: x_hat + 0.1})
    for name in ("rayleigh_clean", "rayleigh_noisy", "eigenvalue_min", "eigenvalue_max"):
        assert report[name] == pytest.approx(2.5, rel=1e-2)
    assert report["psnr_denoised"] == pytest.approx(20, abs=1e-3)


def test_the_monitors_pictures_show_what_a_network_is_given_what_it_makes_of_it_and_the_truth():
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = []

    def P(z: Tensor, sigma: float) -> Tensor:
        given.append(z)
        return torch.full_like(z, torch.nan)

    report = Health(x_hat, steps=3)({"P": P, "G": lambda x: 0 * x})
    pictures = [report[name] for name in ("denoised", "completed", "deblurred")]
    for picture in pictures:
        assert picture.shape == (3, 32, 96)
        assert 0 <= picture.min() and picture.max() <= 1
        assert torch.equal(picture[..., 64:], x_hat[0])
    noisy, denoised = pictures[0][..., :32], pictures[0][..., 32:64]
    assert torch.equal(noisy, given[0][0].clamp(0, 1)) and (denoised == 0).all()
    start, completed = pictures[1][..., :32], pictures[1][..., 32:64]
    kept = (start == x_hat[0]).all(dim=0)  # the other pixels are grey
    assert 0.1 < kept.float().mean() < 0.3 and (start[:, ~kept] == 0.5).all()
    torch.testing.assert_close(completed, start)  # without a prior it stays
