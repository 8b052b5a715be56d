from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rglib.commands.arguments import parser
from rglib.core import fixed_point
from rglib.core.fixed_point import (
    Adam,
    KeepableSolver,
    Outcome,
    Picard,
    SemiImplicit,
    StoppingRule,
    back_propagated,
    slope,
    solve,
    solver_named,
)
from rglib.core.maps import ForwardBackward, GradientStep, RegularizedGradient
from rglib.core.operators import Blur, Downsample, Identity, Mask
from rglib.core.problems import DataGradient
from rglib.plan.roles import SOLVERS

# --- the linear prior: both fixed points are the MAP estimate, eqs. (12) and (14) -----------------

ROOT = Path(__file__).parent.parent
SHAPE = (3, 6, 5)
TO_1E_6 = StoppingRule(max_iterations=5000, tolerance=1e-16)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


OPERATORS = {
    "identity": Identity(),
    "mask": Mask((torch.rand(1, 1, 6, 5, generator=generator()) > 0.6).float()),
    "blur": Blur.from_kernel(torch.rand(3, 5, generator=generator()) / 8, height=6, width=5),
    "sr2": Downsample.by(2, kernel="bicubic", height=6, width=5),
    "sr3": Downsample.by(3, kernel="gaussian", height=6, width=5),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("way", ["Picard on f", "Picard on g", "Adam"])
def test_every_solver_finds_the_map_estimate_of_a_linear_prior(
    name, way, linear_prior, in_double, dense
):
    prior, A, sigma = linear_prior(90), in_double(OPERATORS[name]), 0.7
    y = A(torch.rand(2, *SHAPE, generator=generator(1), dtype=torch.float64))
    D = DataGradient(A, y)
    gradient = RegularizedGradient(prior.G, D, sigma)
    solver, F = {
        "Picard on f": (Picard(), ForwardBackward(prior.P, D, sigma, eta=0.49)),
        "Picard on g": (Picard(), GradientStep(gradient, eta=0.3)),
        # with the usual epsilon of 1e-8, Adam at a constant lr circles the zero at a distance
        "Adam": (Adam(lr=0.02, epsilon=1e-2), gradient),
    }[way]
    found = solve(solver, F, torch.zeros(2, *SHAPE, dtype=torch.float64), TO_1E_6)
    assert found.share(Outcome.CONVERGED) == 1
    expected = prior.minimiser(dense(A, SHAPE), y, sigma)
    torch.testing.assert_close(found.x.flatten(1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("eta", [0.1, 0.49, 1.0])
def test_the_fixed_point_of_f_does_not_depend_on_eta(eta, linear_prior, in_double, dense):
    prior, A = linear_prior(90), in_double(OPERATORS["sr2"])
    y = A(torch.rand(1, *SHAPE, generator=generator(1), dtype=torch.float64))
    f = ForwardBackward(prior.P, DataGradient(A, y), 0.5, eta)
    x = prior.minimiser(dense(A, SHAPE), y, 0.5).view(1, *SHAPE)
    torch.testing.assert_close(f(x), x, atol=1e-12, rtol=0)


# --- maps of which everything is known ------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """z -> slope z + offset, with a slope for each image; remembers the batch sizes it met."""

    slope: Tensor
    offset: Tensor
    sizes: list[int] = field(default_factory=list)

    @staticmethod
    def of(*slopes, offset=0.0):
        slope = torch.tensor(slopes).view(-1, 1, 1, 1)
        return Affine(slope, torch.full_like(slope, offset))

    def __call__(self, z):
        self.sizes.append(len(z))
        return self.slope * z + self.offset

    def select(self, indices):
        return Affine(self.slope[indices], self.offset[indices], self.sizes)


def ones(batch):
    return torch.ones(batch, 3, 2, 2)


HALVES, OSCILLATES, DOUBLES, EXPLODES = 0.5, -1.0, 2.0, float("inf")
ENDS = {  # slope -> outcome, iterations and last iterate, from 1 within 20 iterations
    HALVES: (Outcome.CONVERGED, 12, 2**-12),  # 4^-12 < 1e-7 < 4^-11
    OSCILLATES: (Outcome.OUT_OF_STEPS, 20, 1.0),
    DOUBLES: (Outcome.DIVERGED, 7, 128.0),
    EXPLODES: (Outcome.NON_FINITE, 1, 1.0),
}


@pytest.mark.parametrize("slope", ENDS)
def test_every_kind_of_map_ends_with_its_outcome(slope):
    outcome, iterations, x = ENDS[slope]
    found = solve(Picard(), Affine.of(slope), ones(1), StoppingRule(max_iterations=20))
    assert (found.outcome.item(), found.iterations.item()) == (outcome, iterations)
    assert torch.equal(found.x, x * ones(1))
    assert found.share(outcome) == 1


def test_a_map_that_is_nan_after_some_steps_keeps_the_last_finite_iterate():
    class NanBelow(Affine):
        def __call__(self, z):
            return torch.where(z.abs() < 0.3, torch.nan, self.slope * z)

    found = solve(Picard(), NanBelow(torch.tensor(0.5), None), ones(1), StoppingRule())
    assert found.outcome.item() == Outcome.NON_FINITE
    assert found.iterations.item() == 3  # 1, 1/2, 1/4, nan
    assert torch.equal(found.x, 0.25 * ones(1))


def test_images_that_have_ended_leave_the_batch_and_the_others_go_on():
    F = Affine.of(*ENDS)
    found = solve(Picard(), F, ones(4), StoppingRule(max_iterations=20))
    assert [(o, i) for o, i in zip(found.outcome, found.iterations, strict=True)] == [
        (outcome, iterations) for outcome, iterations, _ in ENDS.values()
    ]
    assert found.x[:, 0, 0, 0].tolist() == [x for _, _, x in ENDS.values()]
    assert F.sizes == [4] + [3] * 6 + [2] * 5 + [1] * 8


@pytest.mark.parametrize("solver", [Picard(), Adam(lr=0.1)])
@given(slopes=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=5))
@settings(max_examples=25)
def test_per_image_freezing_equals_solving_one_by_one(solver, slopes):
    stop = StoppingRule(max_iterations=40, tolerance=1e-5, guard=20)
    x0 = torch.rand(len(slopes), 3, 2, 2, generator=generator())
    together = solve(solver, Affine.of(*slopes, offset=0.3), x0, stop)
    for i, factor in enumerate(slopes):
        alone = solve(solver, Affine.of(factor, offset=0.3), x0[i : i + 1], stop)
        assert torch.equal(alone.x[0], together.x[i])
        assert alone.outcome[0] == together.outcome[i]
        assert alone.iterations[0] == together.iterations[i]


def test_a_batch_can_be_judged_as_a_whole():
    stop = StoppingRule(max_iterations=50, per_image=False)
    F = Affine.of(0.5, 0.9)
    found = solve(Picard(), F, ones(2), stop)
    # mean square changes: (4^-k + (0.1 * 0.9^(k-1))^2) / 2, below 1e-7 first for k = 53
    assert F.sizes == [2] * 50
    assert found.outcome.tolist() == [Outcome.OUT_OF_STEPS] * 2
    found = solve(Picard(), F, ones(2), StoppingRule(per_image=False))
    assert found.outcome.tolist() == [Outcome.CONVERGED] * 2
    expected = next(k for k in range(1, 99) if (4**-k + (0.1 * 0.9 ** (k - 1)) ** 2) / 2 < 1e-7)
    assert found.iterations.tolist() == [expected] * 2
    found = solve(Picard(), Affine.of(0.5, 2.0), ones(2), StoppingRule(per_image=False))
    assert found.outcome.tolist() == [Outcome.DIVERGED] * 2
    torch.testing.assert_close(found.x[:, 0, 0, 0], torch.tensor([2.0**-7, 128.0]))


def test_the_default_stopping_rule_is_the_papers():
    assert StoppingRule() == StoppingRule(500, 1e-7, 100.0, per_image=True)


def test_the_guard_and_the_tolerance_are_strict():
    at_guard = StoppingRule(max_iterations=1, guard=2.0)
    assert solve(Picard(), Affine.of(2.0), ones(1), at_guard).outcome == Outcome.OUT_OF_STEPS
    at_tolerance = StoppingRule(max_iterations=1, tolerance=0.25)
    assert solve(Picard(), Affine.of(0.5), ones(1), at_tolerance).outcome == Outcome.OUT_OF_STEPS


def test_the_starting_point_is_left_alone_and_no_gradient_is_recorded():
    x0 = ones(2)
    slope = torch.tensor(0.5, requires_grad=True)
    found = solve(Picard(), Affine(slope.expand(2, 1, 1, 1), slope * 0), x0, StoppingRule())
    assert torch.equal(x0, ones(2))
    assert not found.x.requires_grad


@given(seed=st.integers(0, 2**31), lr=st.floats(1e-4, 1))
@settings(max_examples=20)
def test_adams_iterates_equal_those_of_torch(seed, lr):
    x = torch.rand(2, 3, 4, 4, generator=generator(seed), dtype=torch.float64)
    target = torch.rand(x.shape, generator=generator(seed + 1), dtype=torch.float64)
    theirs = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=lr)
    adam = Adam(lr=lr)
    state = adam.init(lambda z: (z - target) ** 3, x)
    for _ in range(30):
        theirs.grad = (theirs - target).detach() ** 3
        optimiser.step()
        x, state = adam.step(lambda z: (z - target) ** 3, x, state)
        torch.testing.assert_close(x, theirs.detach(), rtol=1e-12, atol=1e-12)


# --- the semi-implicit solver --------------------------------------------------------------------


@pytest.fixture
def split(linear_prior, in_double):
    """D + s^2 G of a linear prior, for the operator of a name, and the steepest slope of G."""

    def build(name, s):
        prior, A = linear_prior(90), in_double(OPERATORS[name])
        y = A(torch.rand(2, *SHAPE, generator=generator(1), dtype=torch.float64))
        return RegularizedGradient(prior.G, DataGradient(A, y), s), prior

    return build


@pytest.mark.parametrize("s", [1e-3, 1 / 255, 0.2, 5.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_semi_implicit_way_is_short_whatever_s_and_the_operator(name, s, split, dense):
    gradient, prior = split(name, s)
    stop = StoppingRule(max_iterations=150, tolerance=1e-18)
    found = solve(SemiImplicit(), gradient, torch.zeros(2, *SHAPE, dtype=torch.float64), stop)
    assert found.share(Outcome.CONVERGED) == 1
    expected = prior.minimiser(dense(gradient.D.A, SHAPE), gradient.D.y, s)
    torch.testing.assert_close(found.x.flatten(1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_semi_implicit_step_has_d_at_its_end_and_g_at_its_start(name, split):
    gradient, _ = split(name, 0.1)
    z = torch.rand(2, *SHAPE, generator=generator(7), dtype=torch.float64)
    tau = torch.tensor([0.02, 0.3], dtype=torch.float64).view(2, 1, 1, 1)
    x = gradient.semi_implicit(z, tau)
    expected = z - tau * (gradient.D(x) / 0.1**2 + gradient.G(z))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


ZEROS = {"float": 0.0, "integer": 0, "of an image": torch.tensor([0.1, 0]).view(2, 1, 1, 1)}


@pytest.mark.parametrize("s", ZEROS.values(), ids=ZEROS)
def test_a_semi_implicit_step_without_a_prior_is_refused(split, s):
    gradient, _ = split("blur", s)
    with pytest.raises(ValueError, match="with s = 0 take the solver adam"):
        solve(SemiImplicit(), gradient, torch.zeros(2, *SHAPE, dtype=torch.float64), TO_1E_6)


def test_the_slope_approaches_the_spectral_norm_from_within(linear_prior):
    G, Q = linear_prior(90).G, linear_prior(90).Q
    x = torch.rand(2, *SHAPE, generator=generator(2), dtype=torch.float64)
    norm = torch.linalg.matrix_norm(Q, 2).item()
    for found in slope(G, x, iterations=300).flatten().tolist():
        assert found == pytest.approx(norm, rel=1e-2)
    for found in slope(G, x).flatten().tolist():
        assert 0.7 * norm < found <= norm * (1 + 1e-9)


@pytest.mark.parametrize(
    ("shortening", "outcome"), [(0.9, Outcome.CONVERGED), (1.0, Outcome.OUT_OF_STEPS)]
)
def test_the_step_becomes_shorter_where_a_zero_is_steeper_than_the_start(shortening, outcome):
    zero = torch.rand(1, *SHAPE, generator=generator(5), dtype=torch.float64)
    nothing = DataGradient(Mask(torch.zeros(1, 1, *SHAPE[1:]).double()), torch.zeros_like(zero))

    def steep(x):  # 2.5 at the zero, 1 far away
        v = x - zero
        return v + 1.5 * v.clamp(-1, 1)

    F = RegularizedGradient(steep, nothing, 0.5)
    rule = StoppingRule(max_iterations=300, tolerance=1e-12)
    found = solve(SemiImplicit(shortening=shortening), F, torch.full_like(zero, 9.0), rule)
    assert found.outcome.tolist() == [outcome]
    if outcome == Outcome.CONVERGED:
        torch.testing.assert_close(found.x, zero, rtol=0, atol=1e-5)


def test_the_semi_implicit_way_of_an_image_does_not_depend_on_its_batch(split):
    gradient, prior = split("blur", 0.3)
    steep = torch.tensor([1.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    start = torch.rand(2, *SHAPE, generator=generator(4), dtype=torch.float64)
    rule = StoppingRule(max_iterations=20, tolerance=0)
    both = solve(SemiImplicit(), replace(gradient, G=lambda x: steep * prior.G(x)), start, rule)
    for i in range(2):
        one = torch.tensor([i])
        alone = replace(gradient.select(one), G=lambda x, i=i: steep[i] * prior.G(x))
        found = solve(SemiImplicit(), alone, start[one], rule)
        torch.testing.assert_close(found.x, both.x[one], rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [Adam(lr=0.05), SemiImplicit()])
@pytest.mark.parametrize("looks", [3, 8, 1000])
def test_how_often_it_is_looked_changes_nothing(solver, looks, split, monkeypatch):
    gradient, _ = split("mask", 0.5)
    start = torch.stack((torch.zeros(SHAPE), torch.full(SHAPE, 30.0))).double()
    rule = StoppingRule(max_iterations=60, tolerance=1e-6, guard=40)
    expected = solve(solver, gradient, start, rule)
    monkeypatch.setitem(fixed_point.LOOK_EVERY, "cpu", looks)
    found = solve(solver, gradient, start, rule)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.outcome, expected.outcome)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)


def test_a_map_of_one_piece_cannot_be_solved_semi_implicitly():
    with pytest.raises(TypeError, match="Affine does not offer"):
        solve(SemiImplicit(), Affine.of(0.5, offset=0.3), ones(1), StoppingRule())


def test_a_flat_gradient_takes_the_data_as_they_are(split):
    gradient, _ = split("mask", 0.1)
    flat = replace(gradient, G=torch.zeros_like)
    found = solve(SemiImplicit(), flat, torch.zeros(2, *SHAPE, dtype=torch.float64), TO_1E_6)
    torch.testing.assert_close(flat.D.A(found.x), flat.D.y, rtol=0, atol=1e-9)


def test_an_image_that_rests_leaves_the_others_their_momentum(split):
    gradient, _ = split("blur", 0.3)
    start = torch.zeros(2, *SHAPE, dtype=torch.float64)
    rule = StoppingRule(max_iterations=500, tolerance=1e-10)
    there = solve(SemiImplicit(), gradient, start, replace(rule, tolerance=1e-20)).x
    found = solve(SemiImplicit(), gradient, torch.stack((there[0], start[1])), rule)
    assert found.iterations[0] < found.iterations[1]
    torch.testing.assert_close(found.x, there, rtol=0, atol=1e-4)


# --- back-propagation at a fixed point, eqs. (9-11) and (31) -------------------------------------


@pytest.fixture
def affine_equilibrium():
    """W with norm 1/2, b, the fixed point x of W x + b and a target t, float64."""
    W = torch.randn(4, 4, generator=generator(), dtype=torch.float64)
    W = 0.5 * W / torch.linalg.matrix_norm(W, 2)
    b, t = torch.randn(2, 4, generator=generator(1), dtype=torch.float64)
    return W.requires_grad_(), b.requires_grad_(), torch.linalg.solve(torch.eye(4) - W, b), t


def gradients(F, parameters, x, t, *, terms):
    """Value of 1/2 ||x - t||^2 at the fixed point x of F, and its gradients."""
    value = back_propagated(F(x.detach()), F, x, terms=terms)
    loss = 0.5 * (value - t).square().sum()
    return value, torch.autograd.grad(loss, parameters)


def test_jfb_has_the_fixed_points_value_and_takes_the_inverse_jacobian_as_identity(
    affine_equilibrium,
):
    W, b, x, t = affine_equilibrium
    value, (grad_W, grad_b) = gradients(lambda z: W @ z + b, (W, b), x, t, terms=0)
    torch.testing.assert_close(value, x)
    torch.testing.assert_close(grad_b, (x - t).detach())
    torch.testing.assert_close(grad_W, torch.outer(x - t, x).detach())


@pytest.mark.parametrize("terms", [1, 2, 5])
def test_some_terms_are_the_partial_sum_of_the_neumann_series(affine_equilibrium, terms):
    W, b, x, t = affine_equilibrium
    value, (_, grad_b) = gradients(lambda z: W @ z + b, (W, b), x, t, terms=terms)
    powers = [torch.linalg.matrix_power(W.detach().T, k) for k in range(terms + 1)]
    torch.testing.assert_close(value, x)
    torch.testing.assert_close(grad_b, sum(powers) @ (x - t).detach())


def test_many_terms_are_the_implicit_gradient_in_closed_form(affine_equilibrium):
    W, b, x, t = affine_equilibrium
    _, (grad_W, grad_b) = gradients(lambda z: W @ z + b, (W, b), x, t, terms=60)
    with torch.no_grad():
        implicit = torch.linalg.solve((torch.eye(4) - W).T, x - t)
    torch.testing.assert_close(grad_b, implicit, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad_W, torch.outer(implicit, x.detach()), rtol=1e-12, atol=1e-12)


def test_many_terms_are_the_slope_of_the_loss_by_finite_differences(affine_equilibrium):
    """On tanh(W x + b), whose fixed point has no closed form."""
    W, b, _, t = affine_equilibrium

    def fixed_point(b):
        x = torch.zeros(4, dtype=torch.float64)
        for _ in range(200):
            x = torch.tanh(W.detach() @ x + b)
        return x

    def loss(b):
        return 0.5 * (fixed_point(b) - t).square().sum().item()

    x = fixed_point(b.detach())
    _, (implicit,) = gradients(lambda z: torch.tanh(W @ z + b), (b,), x, t, terms=80)
    _, (jfb,) = gradients(lambda z: torch.tanh(W @ z + b), (b,), x, t, terms=0)
    small = 1e-6 * torch.eye(4, dtype=torch.float64)
    differences = [(loss(b.detach() + e) - loss(b.detach() - e)) / 2e-6 for e in small]
    torch.testing.assert_close(implicit, torch.tensor(differences).double(), atol=1e-7, rtol=1e-6)
    assert not torch.allclose(jfb, implicit, rtol=0.05)
    assert torch.dot(jfb, implicit) > 0  # and yet it descends


def test_the_gradient_can_be_asked_for_twice(affine_equilibrium):
    """A logged step takes the gradient of each term, and then of all."""
    W, b, x, t = affine_equilibrium

    def F(z):
        return W @ z + b

    value = back_propagated(F(x.detach()), F, x, terms=3)
    loss = 0.5 * (value - t).square().sum()
    first = torch.autograd.grad(loss, b, retain_graph=True)
    second = torch.autograd.grad(loss, b)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


# --- solvers by name ------------------------------------------------------------------------------


def test_the_names_of_solvers_are_those_of_the_options_and_of_the_configuration():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert list(SOLVERS) == list(fixed_point.SOLVERS)
    assert list(SOLVERS) == schema["$defs"]["solver"]["anyOf"][0]["enum"]
    restore = parser().parse_args(["restore", "y.png", "-o", "x.png", "--solver", SOLVERS[-1]])
    assert restore.solver == SOLVERS[-1]


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_of_a_name_can_keep_its_iterates(name):
    """The check of configurations relies on it: planning takes no PyTorch and cannot look."""
    assert isinstance(solver_named(name, lr=0.1), KeepableSolver)
