import pytest
import torch
from torch import nn

from rglib.core.problems import Completion, SeededImage, observe
from rglib.report.fixed_points import GRADIENTS
from rglib.restoration.evaluation import GroundTruth
from rglib.studies.gradients import COLUMNS, TERMS, compare_gradients


class Scaling(nn.Module):
    """G(x) = a x, whose zero and gradient are known."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return self.a * x


def image(size=8, seed=0):
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return GroundTruth(str(seed), pixels)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_true_gradient_is_that_of_the_closed_form(sigma):
    """L(a) = ||m y / (m + sigma^2 a) - x_hat||^2 / n, by differences."""
    a, one = 3.0, image()
    degradation = Completion(keep=0.5, sigma=sigma)
    seen = observe(degradation, one.pixels, SeededImage(0))

    def loss(a):
        m = seen.problem.A.mask.double()
        x_g = m * seen.y.double() / (m + sigma**2 * a)
        return (x_g - one.pixels.double()).square().mean().item()

    table = compare_gradients(Scaling(a), [one], eta_gd=0.05, problems={"c": degradation})
    true = table[table["map"] == "implicit"]
    expected = abs(loss(a + 1e-4) - loss(a - 1e-4)) / 2e-4
    assert true["norm"].item() == pytest.approx(expected, rel=1e-3)
    assert true["cosine"].item() == pytest.approx(1)


def test_through_g_weak_noise_teaches_little_and_through_the_other_map_as_much(tiny):
    G = tiny("G", widths=(4, 6, 8, 8))
    G.m_tail.weight.data *= 100
    problems = {str(s): Completion(keep=0.5, sigma=s / 255) for s in (1, 30)}
    table = compare_gradients(G, [image(16)], eta_gd=0.05, problems=problems)
    assert list(table) == [name for name in COLUMNS if name in table] == list(COLUMNS)
    assert {(row.map, row.terms) for row in table.itertuples()} == set(GRADIENTS)
    norm = table[table["terms"] == 0].set_index(["problem", "map"])["norm"]
    assert norm["30", "gradient"] > 100 * norm["1", "gradient"]
    assert norm["30", "semi_implicit"] < 30 * norm["1", "semi_implicit"]


def test_terms_lead_towards_the_true_gradient():
    G = nn.Conv2d(3, 3, 1, bias=False)
    G.weight.data = torch.diag(torch.tensor([1.0, 3.0, 9.0])).view(3, 3, 1, 1)
    problems = {"c": Completion(keep=0.5, sigma=0.5)}
    table = compare_gradients(G, [image()], eta_gd=0.05, problems=problems)
    cosine = table.set_index(["map", "terms"])["cosine"]
    assert cosine["semi_implicit", 0] < cosine["semi_implicit", TERMS] < 1
