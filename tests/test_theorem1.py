import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from toys import LONG_FOOT, check_layout, toy_provenance

from rglib.core.fixed_point import Outcome, StoppingRule
from rglib.core.maps import ForwardBackward, GradientStep, RegularizedGradient
from rglib.core.operators import Downsample, Mask
from rglib.core.problems import DataGradient, Observation, Problem
from rglib.core.spectrum import lipschitz
from rglib.core.tensors import centre
from rglib.core.theorem import Sides, link_loss
from rglib.plan.check import ConfigurationError, check
from rglib.report.evaluations import ResultsError
from rglib.report.figures import save
from rglib.report.theorem1 import COLUMNS, FAINT, bound_figure
from rglib.restoration.evaluation import GroundTruth
from rglib.studies.theorem1 import Search, both_sides, both_sides_of_all, descend, picard

ROOT = Path(__file__).parent.parent

SHAPE = (1, 3, 4, 4)
N = 48
SIGMA = 0.8
SEARCH = Search(
    eta=0.49,
    lr=0.05,
    stop=StoppingRule(max_iterations=1000, tolerance=1e-12, guard=10.0),
    power_iterations=N,
)


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def linear(matrix):
    return lambda x: (matrix @ x.flatten()).view(x.shape)


OPERATORS = {
    "completion": Mask((normal(1, 1, 4, 4, seed=1) > 0).float()),
    "super-resolution": Downsample.by(2, kernel="bicubic", height=4, width=4),
}


@pytest.fixture(params=OPERATORS)
def seen(request, in_double):
    A = in_double(OPERATORS[request.param])
    x_hat = normal(*SHAPE, seed=2)
    y = A(x_hat) + SIGMA * normal(*A(x_hat).shape, seed=3)
    return Observation(Problem(A, SIGMA), x_hat, y, x0=torch.zeros_like(x_hat))


@pytest.fixture(scope="module")
def prior(linear_prior):
    return linear_prior(N)


@pytest.fixture(scope="module")
def perturbed(prior):
    """G(x) = (Q + E) x, with a skewed E: no gradient of anything."""
    E = normal(N, N, seed=4)
    return replace(prior, Q=prior.Q + 0.9 * E / torch.linalg.matrix_norm(E, 2))


def maps(prior, G, seen):
    D = DataGradient(seen.problem.A, seen.y)
    f = ForwardBackward(prior.P, D, SIGMA, SEARCH.eta)
    return D, f, GradientStep(RegularizedGradient(G, D, SIGMA), SEARCH.eta)


def jacobian(F, x):
    return torch.autograd.functional.jacobian(F, x).reshape(x.numel(), x.numel())


# --- the Lipschitz constant -----------------------------------------------------------------------


def test_lipschitz_is_the_largest_singular_value_of_a_matrix():
    matrix = normal(N, N, seed=0)
    expected = torch.linalg.matrix_norm(matrix, 2).item()
    found = lipschitz(linear(matrix), normal(*SHAPE, seed=1), iterations=N)
    assert found == pytest.approx(expected, rel=1e-9)


def test_lipschitz_tells_singular_values_that_crowd_under_1_from_1():
    turned = torch.linalg.qr(normal(N, N, seed=0)).Q
    for largest in (0.999, 1.001):
        values = torch.cat((torch.linspace(0.5, 0.998, N - 1), torch.tensor([largest]))).double()
        found = lipschitz(linear(turned * values), normal(*SHAPE, seed=1), iterations=30)
        assert found == pytest.approx(largest, abs=2e-4)


def test_lipschitz_estimates_from_below():
    matrix = normal(N, N, seed=0)
    x = normal(*SHAPE, seed=1)
    found = [lipschitz(linear(matrix), x, iterations=k) for k in (1, 3, 10, N)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_lipschitz_stops_where_nothing_is_left_to_find():
    assert lipschitz(lambda x: -2 * x, normal(*SHAPE, seed=1)) == pytest.approx(2)


@pytest.mark.parametrize("seed", [0, 1])
def test_lipschitz_of_a_network_is_that_of_its_jacobian(tiny, seed):
    G = tiny("G", seed).requires_grad_(False)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    expected = torch.linalg.matrix_norm(jacobian(G, x), 2).item()
    assert lipschitz(G, x, iterations=60) == pytest.approx(expected, rel=1e-3)


# --- the theorem ----------------------------------------------------------------------------------


def test_the_link_loss_at_a_fixed_point_is_eq_20(prior, perturbed, seen):
    D, f, g = maps(prior, perturbed.G, seen)
    exact = replace(SEARCH, stop=replace(SEARCH.stop, tolerance=1e-30))
    x_f = picard(f, seen.x0, exact).x
    expected = (SEARCH.eta * (SIGMA**2 * perturbed.G(x_f) + D(x_f))).square().flatten(1).sum(1)
    torch.testing.assert_close(link_loss(f, perturbed.G, x_f), expected)
    torch.testing.assert_close((g(x_f) - x_f).square().flatten(1).sum(1), expected)


def test_the_link_loss_vanishes_where_g_and_p_are_linked(prior, seen):
    _, f, _ = maps(prior, prior.G, seen)
    anywhere = normal(2, *SHAPE[1:], seed=5)
    assert link_loss(f, prior.G, anywhere).max() < 1e-24


def test_both_inequalities_hold_for_a_perturbed_linear_prior(prior, perturbed, seen):
    D, _, g = maps(prior, perturbed.G, seen)
    row = both_sides(prior.P, perturbed.G, seen, sigma=SIGMA, search=SEARCH)
    hessian = (torch.eye(N) - jacobian(g, seen.x0)) / SEARCH.eta
    x_g = torch.linalg.solve(hessian, D.A.adjoint(D.y).flatten()).view(SHAPE)
    true_contraction = torch.linalg.matrix_norm(jacobian(g, x_g), 2).item()
    assert row["x_f_outcome"] == row["x_g_outcome"] == "converged"
    assert row["x_g_residual"] < 1e-5
    assert row["contraction"] == pytest.approx(true_contraction, rel=1e-9)
    assert row["distance_g"] == pytest.approx((x_g - seen.x_hat).norm().item(), rel=1e-4)
    assert row["assumption_holds"] and row["holds_18"] and row["holds_25"]
    assert 1 <= row["tightness_18"] < 10
    assert row["secant"] <= row["contraction"]
    assert row["distance_g"] <= row["bound_secant"] <= row["bound_18"]


def test_the_row_agrees_with_the_formula_of_the_bound(prior, perturbed, seen):
    _, f, _ = maps(prior, perturbed.G, seen)
    row = both_sides(prior.P, perturbed.G, seen, sigma=SIGMA, search=SEARCH)
    x_f = picard(f, seen.x0, SEARCH).x
    distance = (x_f - seen.x_hat).norm().item()
    expected = row["link"] ** 0.5 / (1 - row["contraction"]) + distance
    assert row["bound_18"] == pytest.approx(expected)


def test_the_sides_are_those_of_the_paper():
    sides = Sides(distance_g=10.0, distance_f=2.0, link=9.0, contraction=0.5)
    assert (sides.bound_18, sides.holds_18, sides.tightness_18) == (8.0, False, 0.8)
    assert (sides.left_25, sides.right_25, sides.holds_25) == (50.0, 40.0, False)


@pytest.mark.parametrize(("contraction", "holds"), [(1.0, False), (1.5, False), (math.nan, None)])
def test_without_a_contraction_there_is_no_bound(contraction, holds):
    sides = Sides(distance_g=1.0, distance_f=1.0, link=1.0, contraction=contraction)
    assert sides.assumption_holds is holds
    assert sides.holds_18 is sides.holds_25 is None
    assert math.isnan(sides.bound_18) and math.isnan(sides.right_25)


# --- what happens where a fixed point is not found ------------------------------------------------


def test_where_g_repels_the_row_says_so(prior, seen):
    far = replace(SEARCH, lr=1.0)
    row = both_sides(prior.P, lambda x: -3 * x, seen, sigma=SIGMA, search=far)
    assert row["x_g_outcome"] == "diverged"
    assert row["x_f_outcome"] == "converged"
    assert row["contraction"] > 1 and row["assumption_holds"] is False
    assert math.isnan(row["distance_g"]) and math.isnan(row["bound_18"])
    assert row["holds_18"] is None


def test_where_f_diverges_only_g_is_judged(perturbed, seen):
    row = both_sides(lambda z, sigma: 3 * z, perturbed.G, seen, sigma=SIGMA, search=SEARCH)
    assert row["x_f_outcome"] == "diverged" and row["x_g_outcome"] == "converged"
    assert row["assumption_holds"] is True
    assert row["distance_g"] > 0 and math.isnan(row["link"]) and row["holds_18"] is None


def test_a_search_that_runs_out_of_steps_is_not_called_converged(prior, perturbed, seen):
    _, f, g = maps(prior, perturbed.G, seen)
    brief = replace(SEARCH, stop=replace(SEARCH.stop, max_iterations=20))
    for found in (picard(f, seen.x0, brief), descend(g, seen.x0, brief)):
        assert found.outcome == Outcome.OUT_OF_STEPS
        assert found.residual > 1e-4


# --- networks -------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_problem_and_image_and_its_columns_are_described(tiny, told):
    pixels = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    search = Search.of(
        {"iterations": 2, "tolerance": 1e-13, "power_iterations": 2},
        {"eta_fb": 0.49, "eta_gd": 0.05, "guard": 100.0},
    )
    table = both_sides_of_all(
        tiny("P"),
        tiny("G"),
        [GroundTruth("a", pixels), GroundTruth("b", pixels.flip(-1))],
        sigmas={"completion90": 0.004, "sr3_gaussian_n0.01": 0.01},
        crop=32,
        search=search,
        device=torch.device("cpu"),
    )
    assert list(table["problem_id"]) == ["completion90"] * 2 + ["sr3_gaussian_n0.01"] * 2
    assert list(table["image"]) == ["a", "b"] * 2
    assert ["method", "problem_id", "image", "denoiser", *table.columns[2:]] == list(COLUMNS)
    assert told()[-1].startswith("Theorem 1: image 4 of 4, sr3_gaussian_n0.01 b, ")


@pytest.mark.parametrize(("size", "shape"), [(32, (32, 32)), (45, (40, 45)), (64, (40, 48))])
def test_the_crop_is_in_the_middle(size, shape):
    x = torch.arange(40)[:, None] + torch.arange(48).expand(1, 3, 40, 48)
    cropped = centre(x, size)
    assert cropped.shape[-2:] == shape
    torch.testing.assert_close(cropped.float().mean(), x.float().mean(), atol=0.51, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoiser": "deqgd"}, "bound.denoiser: .* a stage that learns P"),
        ({"crop": 16}, "bound.crop"),
        ({"iteration": 3}, "bound.iteration: unknown key"),
    ],
)
def test_mistakes_of_the_configuration_are_named(change, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config.yaml").read_text())
    schema = yaml.safe_load(Path("workflow/schemas/config.schema.yaml").read_text())
    check(config, schema)
    with pytest.raises(ConfigurationError, match=message):
        check(config | {"bound": config["bound"] | change}, schema)


# --- the figure -----------------------------------------------------------------------------------

PROVENANCE = toy_provenance()
NAN = math.nan


def bounds(rows):
    names = ["method", "problem_id", "distance_g", "contraction", "bound_18", "x_f_outcome"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(bound_secant=table["distance_g"] * 2, x_g_outcome="converged")


def test_the_figure_counts_where_the_assumption_holds_and_what_was_found():
    table = bounds(
        [
            ("rg1", "completion80", 3.0, 1.2, NAN, "out_of_steps"),
            ("rg1", "deblur_s1.6", 2.0, 0.9, 7.0, "converged"),
            ("rg1", "sr2_bicubic_n0", 2.0, 0.9, NAN, "diverged"),
            ("rerg", "deblur_s1.6", 2.0, 0.9, 7.0, "converged"),
        ]
    )
    figure = bound_figure(table, labels={"rg1": "RG1", "rerg": "RERG"}, provenance=PROVENANCE)
    rg1, rerg = figure.axes
    assert "$: 2 of 3" in rg1.get_xlabel() and "converged: 1 of 3" in rg1.get_xlabel()
    assert "$: 1 of 1" in rerg.get_xlabel() and "converged: 1 of 1" in rerg.get_xlabel()
    filled = [line for line in rg1.lines if line.get_fillstyle() == "full"]
    drawn = {line.get_alpha(): y for line in filled for y in line.get_ydata() if y == y}
    assert drawn[1.0] == 7.0
    assert 7.0 < drawn[FAINT] < rg1.get_ylim()[1]  # in the band on top
    assert any("STAND-IN" in text.get_text() for text in figure.texts)
    check_layout(
        bound_figure(table, labels={"rg1": "RG1", "rerg": "RERG"}, provenance=LONG_FOOT),
        foot_lines=2,
    )


def test_a_figure_without_numbers_is_empty_but_drawn(tmp_path):
    table = bounds([("rg1", "completion80", NAN, NAN, NAN, "diverged")])
    figure = bound_figure(table, labels={"rg1": "RG1"}, provenance=PROVENANCE)
    save(figure, tmp_path / "bound.png", title="t", provenance=PROVENANCE)
    assert (tmp_path / "bound.png").stat().st_size > 0


@pytest.mark.parametrize("labels", [{}, {"rg1": "RG1"}])
def test_a_figure_of_methods_without_bounds_is_refused(labels):
    table = bounds([("rerg", "completion80", 1.0, 0.9, 2.0, "converged")])
    with pytest.raises(ResultsError, match="no bound of"):
        bound_figure(table, labels=labels, provenance=PROVENANCE)
