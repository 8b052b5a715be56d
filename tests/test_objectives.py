import math
from dataclasses import replace

import pytest
import torch

from rglib.core.fixed_point import SemiImplicit, StoppingRule
from rglib.core.kept import Keep, KeptIterates
from rglib.core.metrics import psnr
from rglib.core.problems import (
    Completion,
    Deblurring,
    SeededStep,
    SuperResolution,
    TrainingDistribution,
    observe,
)
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.equilibrium import LOSSES, Equilibrium, drawn
from rglib.training.objectives.losses import Batch, log_mean_square
from rglib.training.objectives.pnpreg import PnPReG
from rglib.training.objectives.residual_start import ResidualStart
from rglib.training.objectives.score_start import ScoreStart

BRIEF = StoppingRule(max_iterations=5)
MTDEQ = Equilibrium(forward_backward=1.0, stop=BRIEF)
RG1 = Equilibrium(link=0.1, forward_backward=1.0, stop=BRIEF)
DEQGD = Equilibrium(gradient_descent=1.0, stop=BRIEF)
RERG = Equilibrium(link=0.1, forward_backward=1.0, gradient_descent=0.1, stop=BRIEF)
OBJECTIVES = {
    "denoising": Denoising(),
    "residual start": ResidualStart(),
    "score start": ScoreStart(),
    "pnpreg": PnPReG(),
    "mtdeq": MTDEQ,
    "rg1": RG1,
    "deqgd": DEQGD,
    "rerg": RERG,
}


def photos(batch=2, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def networks(tiny):
    """P, and a G so large that sigma^2 G is as large as the other terms."""
    G = tiny("G", seed=2)
    G.m_tail.weight.data *= 300
    return {"P": tiny("P", seed=1), "G": G}


def gradients(term, network):
    """Its gradient over all weights of a network as one vector; zero where there is none."""
    weights = list(network.parameters())
    found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    zipped = zip(found, weights, strict=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for g, w in zipped]
    )


class Spy:
    """A network that remembers what it was given and what it returned."""

    def __init__(self, network):
        self.network, self.inputs, self.outputs = network, [], []

    def __call__(self, *inputs):
        self.inputs.append(inputs)
        self.outputs.append(self.network(*inputs))
        return self.outputs[-1]


# --- all objectives -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_a_pure_function_of_seed_and_step(name, networks):
    def total(step, seed):
        return OBJECTIVES[name](networks, Batch(photos(), step, seed)).total.item()

    first = total(4, 0)
    torch.manual_seed(99)
    assert total(4, 0) == first
    assert total(5, 0) != first
    assert total(4, 1) != first


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_reaches_exactly_the_networks_that_learn(name, networks):
    objective = OBJECTIVES[name]
    total = objective(networks, Batch(photos(), 0, 0)).total
    reached = {role for role, network in networks.items() if gradients(total, network).any()}
    assert reached == set(objective.learns)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_networks_that_are_neither_learned_nor_used_are_not_needed(name, networks):
    objective = OBJECTIVES[name]
    needed = {role: networks[role] for role in (*objective.learns, *objective.uses)}
    assert objective(needed, Batch(photos(), 0, 0)).total.isfinite()


def test_which_networks_each_stage_learns():
    assert {name: o.learns for name, o in OBJECTIVES.items()} == {
        "denoising": ("P",),
        "residual start": ("G",),
        "score start": ("G",),
        "pnpreg": ("P", "G"),
        "mtdeq": ("P",),
        "rg1": ("P", "G"),
        "deqgd": ("G",),
        "rerg": ("P", "G"),
    }


# --- the fixed points: Algorithm 1 ----------------------------------------------------------------


def algorithm_1(P, G, x_hat, step, seed, iterations=5, literal_link=False):
    """Algorithm 1 line by line, without any stopping rule: the terms L_FB, L_link and L_GD."""
    eta_fb, eta_gd = 0.49, 0.05
    randomness = SeededStep(seed, step)
    seen = observe(Equilibrium().distribution.draw(randomness), x_hat, randomness)
    A, sigma, y = seen.problem.A, seen.problem.sigma, seen.y

    def D(z):
        return A.adjoint(A(z) - y)

    with torch.no_grad():
        x_f = seen.x0
        for _ in range(iterations):
            x_f = P(x_f - eta_fb * D(x_f), eta_fb**0.5 * sigma)
        z = x_f - eta_fb * D(x_f)
    x_g = seen.x0.clone().requires_grad_()
    adam = torch.optim.Adam([x_g], lr=eta_gd)
    for _ in range(iterations):
        x_g.grad = (D(x_g) + sigma**2 * G(x_g)).detach()
        adam.step()
    x_g = x_g.detach()
    p = P(z, eta_fb**0.5 * sigma)
    variance = sigma**2 if literal_link else eta_fb * sigma**2
    return {
        "FB": ((p - x_hat) ** 2).mean(),
        "link": ((variance * G(p) - (z - p)) ** 2).mean(),
        "GD": ((x_g - eta_gd * (D(x_g) + sigma**2 * G(x_g)) - x_hat) ** 2).mean(),
    }


def step_that_draws(kind):
    return next(
        step
        for step in range(100)
        if isinstance(Equilibrium().distribution.draw(SeededStep(3, step)), kind)
    )


@pytest.mark.parametrize("kind", [Deblurring, SuperResolution, Completion])
def test_losses_and_gradients_are_those_of_algorithm_1(kind, networks):
    step = step_that_draws(kind)
    stop = StoppingRule(max_iterations=5, tolerance=0, guard=float("inf"))
    losses = replace(RERG, stop=stop)(networks, Batch(photos(), step, 3))
    expected = algorithm_1(networks["P"], networks["G"], photos(), step, seed=3)
    weights = {"FB": 1.0, "link": 0.1, "GD": 0.1}  # eq. (30)
    assert set(losses.terms) == set(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(losses.terms[name], weight * expected[name], rtol=1e-4, atol=0)
        for network in networks.values():
            ours = gradients(losses.terms[name], network)
            theirs = weight * gradients(expected[name], network)
            assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
    total = sum(weight * expected[name] for name, weight in weights.items())
    torch.testing.assert_close(losses.total, total, rtol=1e-4, atol=0)


def test_the_loss_in_db_is_the_psnr_of_tables():
    error = 0.05 * torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = psnr(photos(3, 8) + error, photos(3, 8)).mean()
    torch.testing.assert_close(-10 / math.log(10) * log_mean_square(error), expected)


class Doubling(torch.nn.Module):
    """G(x) = a x, whose x_g is known."""

    def __init__(self, a=2.0):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x):
        return self.a * x


@pytest.mark.parametrize("name", ["gradient", "semi_implicit"])
@pytest.mark.parametrize("loss", ["mean_square", "log_mean_square"])
def test_both_backward_maps_lead_to_the_implicit_gradient(name, loss):
    """Of L_GD with respect to a, against differences of the closed form: A^T y / (m + s^2 a)."""
    step, sigma = step_that_draws(Completion), 0.7
    objective = Equilibrium(
        gradient_descent=1.0,
        solver=SemiImplicit(),
        stop=StoppingRule(max_iterations=2000, tolerance=1e-28),
        backward_map=name,
        backward_terms=3000,
        eta_gd=0.5,
        loss=loss,
        distribution=TrainingDistribution(sigma_min=sigma, sigma_max=sigma),
    )
    x_hat = photos().double()

    def in_closed_form(a):
        randomness = Batch(x_hat, step, 3).randomness
        seen = drawn(objective.distribution, x_hat, randomness, x0="test")
        x_g = seen.problem.A.adjoint(seen.y) / (seen.problem.A.mask.double() + sigma**2 * a)
        return LOSSES[loss](x_g - x_hat).item()

    G = Doubling()
    total = objective({"G": G}, Batch(x_hat, step, 3)).total
    (ours,) = torch.autograd.grad(total, [G.a])
    expected = (in_closed_form(2 + 1e-5) - in_closed_form(2 - 1e-5)) / 2e-5
    assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_the_semi_implicit_map_teaches_alike_at_weak_and_strong_noise(networks):
    """The gradient step multiplies by eta sigma^2 what G learns, the other one by tau."""

    def ratio(backward_map):
        norms = []
        for sigma in (1 / 255, 30 / 255):
            distribution = TrainingDistribution(sigma_min=sigma, sigma_max=sigma)
            objective = replace(
                DEQGD,
                solver=SemiImplicit(),
                stop=StoppingRule(max_iterations=1, tolerance=0),
                backward_map=backward_map,
                distribution=distribution,
            )
            step = step_that_draws(Completion)
            term = objective(networks, Batch(photos(), step, 3)).terms["GD"]
            norms.append(gradients(term, networks["G"]).norm().item())
        return norms[1] / norms[0]

    assert ratio("gradient") > 300  # of sigma^2: 900
    assert ratio("semi_implicit") < 100


@pytest.mark.parametrize("objective", [RG1, DEQGD, RERG])
def test_kept_iterates_take_few_evaluations(objective, networks):
    objective = replace(objective, solver=SemiImplicit(), backward_map="semi_implicit")
    P, G = Spy(networks["P"]), Spy(networks["G"])
    kept = KeptIterates(Keep(first_steps=7, steps=2))
    for visit in range(3):
        before = len(P.inputs), len(G.inputs)
        losses = objective({"P": P, "G": G}, Batch(photos(), 0, 0, kept=kept))
        calls = len(P.inputs) - before[0], len(G.inputs) - before[1]
        steps = 2 if visit else 7
        slope = 0 if visit else 1 + SemiImplicit().power_iterations
        needs_f, needs_g = "P" in objective.learns, objective.gradient_descent is not None
        assert calls[0] == needs_f * (steps + 1)
        assert calls[1] == needs_g * (slope + steps + 1) + needs_f  # L_link has G once
        assert losses.total.isfinite()


def test_terms_of_the_inverse_jacobian_change_the_gradients_and_no_loss(networks):
    one_map = replace(RERG, stop=StoppingRule(max_iterations=5))
    few = replace(one_map, backward_terms=2)
    jfb, neumann = (objective(networks, Batch(photos(), 0, 0)) for objective in (one_map, few))
    for name, role in (("FB", "P"), ("GD", "G"), ("link", "P")):
        assert torch.equal(jfb.terms[name], neumann.terms[name])
        ours, theirs = (gradients(o.terms[name], networks[role]) for o in (jfb, neumann))
        assert torch.isfinite(theirs).all() and not torch.allclose(ours, theirs, rtol=1e-3)


def test_l_fb_teaches_p_alone_l_gd_teaches_g_alone_and_the_link_teaches_both(networks):
    terms = RERG(networks, Batch(photos(), 0, 0)).terms
    taught = {
        name: {role for role in "PG" if gradients(term, networks[role]).any()}
        for name, term in terms.items()
    }
    assert taught == {"FB": {"P"}, "GD": {"G"}, "link": {"P", "G"}}


def test_in_rg1_g_learns_from_the_link_alone(networks):
    losses = RG1(networks, Batch(photos(), 0, 0))
    G = networks["G"]
    assert torch.equal(gradients(losses.total, G), gradients(losses.terms["link"], G))


def test_deqgd_never_calls_p(networks):
    spy = Spy(networks["P"])
    DEQGD({"P": spy, "G": networks["G"]}, Batch(photos(), 0, 0))
    assert spy.inputs == []


def test_one_graded_pass_of_p_serves_both_losses_at_x_f(networks):
    spy = Spy(networks["P"])
    RG1(networks | {"P": spy}, Batch(photos(), 0, 0))
    assert [p.requires_grad for p in spy.outputs].count(True) == 1


def test_the_link_can_be_read_literally(networks):
    step = step_that_draws(Deblurring)
    literal = replace(RG1, link_variance="literal", stop=StoppingRule(5, tolerance=0))
    ours = literal(networks, Batch(photos(), step, 3)).terms["link"]
    expected = algorithm_1(*networks.values(), photos(), step, 3, literal_link=True)["link"]
    theirs = 0.1 * gradients(expected, networks["G"])  # about proportional to the variance
    assert (gradients(ours, networks["G"]) - theirs).norm() <= 1e-3 * theirs.norm()


def diagonal_prior(size=32):
    """P_t(z) = z / (1 + t q) and G(x) = q x, of R(x) = 1/2 sum q x^2."""
    q = 1 + torch.arange(float(size))
    return {"P": lambda z, sigma: z / (1 + sigma**2 * q), "G": lambda x: q * x}


@pytest.mark.parametrize("kind", [Deblurring, SuperResolution, Completion])
def test_the_link_loss_of_a_linear_prior_is_zero(kind):
    step = step_that_draws(kind)
    link = RG1(diagonal_prior(), Batch(photos(), step, 3)).terms["link"]
    literal = replace(RG1, link_variance="literal")
    assert link < 1e-12
    assert literal(diagonal_prior(), Batch(photos(), step, 3)).terms["link"] > 1e4 * link


def test_statistics_tell_how_the_fixed_points_ended(networks):
    stop = StoppingRule(max_iterations=3, tolerance=1e9)  # converged at once
    statistics = replace(RERG, stop=stop)(networks, Batch(photos(), 0, 0)).statistics
    assert statistics["f_iterations"] == statistics["g_iterations"] == 1
    assert statistics["f_converged"] == statistics["g_converged"] == 1
    assert 0 <= statistics["sigma"] <= 50 / 255
    stop = StoppingRule(max_iterations=3, guard=1e-9)
    statistics = replace(RERG, stop=stop)(networks, Batch(photos(), 0, 0)).statistics
    assert statistics["f_diverged"] == statistics["g_diverged"] == 1


def test_a_map_without_finite_values_makes_the_loss_non_finite_so_that_the_update_is_skipped():
    broken = {"P": lambda z, sigma: z * torch.nan, "G": lambda x: x * torch.nan}
    losses = RERG(broken, Batch(photos(), 0, 0))
    assert losses.statistics["f_non_finite"] == losses.statistics["g_non_finite"] == 1
    assert not any(term.isfinite() for term in losses.terms.values())


# --- pnpReG, the denoiser and the start for G -----------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_pnpregs_loss_is_the_formula_of_the_released_code(step, networks):
    P, G = Spy(networks["P"]), Spy(networks["G"])
    losses = PnPReG()({"P": P, "G": G}, Batch(photos(), step, 1))
    ((z, s),), (p,), (G_p,) = P.inputs, P.outputs, G.outputs
    assert G.inputs[0][0] is p
    delta = 1 if step % 2 == 0 else 0
    link = ((s.view(-1, 1, 1, 1) ** 2 * G_p - (z - p)) ** 2).mean()
    expected = delta * (p - photos()).abs().mean() + 0.004 * link
    torch.testing.assert_close(losses.total, expected)
    for network in networks.values():
        theirs = gradients(expected, network)
        assert (gradients(losses.total, network) - theirs).norm() <= 1e-4 * theirs.norm()
    assert ("denoising" in losses.terms) == (delta == 1)


def noise_levels(objective, steps, tiny):
    """The noise std in the image and the one P is told, for each image of some steps."""
    added, told = [], []
    for step in steps:
        P = Spy(lambda z, s: z)
        objective({"P": P, "G": tiny("G")}, Batch(photos(batch=4), step, 0))
        ((z, s),) = P.inputs
        added += (z - photos(batch=4)).flatten(1).std(dim=1).tolist()
        told += s.flatten().tolist()
    return torch.tensor(added), torch.tensor(told)


@pytest.mark.parametrize("objective", [PnPReG(), Denoising()])
def test_a_matched_step_tells_p_the_noise_level_of_each_image(objective, tiny):
    added, told = noise_levels(objective, range(0, 40, 2), tiny)
    torch.testing.assert_close(added, told, rtol=0.05, atol=0)
    assert told.min() < 0.1 * 50 / 255 and 0.9 * 50 / 255 < told.max() < 50 / 255


def test_a_mismatched_step_tells_p_another_noise_level(tiny):
    added, told = noise_levels(PnPReG(), range(1, 60, 2), tiny)
    assert abs(torch.corrcoef(torch.stack((added, told)))[0, 1]) < 0.3
    assert max(added.max(), told.max()) < 1.05 * 50 / 255


@pytest.mark.parametrize(("step", "terms"), [(0, {"link", "denoising"}), (1, {"link"})])
def test_pnpregs_link_teaches_both_networks_and_nothing_is_detached(step, terms, networks):
    losses = PnPReG()(networks, Batch(photos(), step, 0))
    assert set(losses.terms) == terms
    assert gradients(losses.terms["link"], networks["P"]).any()
    assert gradients(losses.terms["link"], networks["G"]).any()


def test_pnpregs_probe_noise_is_seen_by_g_alone(networks):
    P, G = Spy(networks["P"]), Spy(networks["G"])
    losses = PnPReG(probe_noise=0.1)({"P": P, "G": G}, Batch(photos(), 0, 0))
    plain = PnPReG()(networks, Batch(photos(), 0, 0))
    torch.testing.assert_close(losses.terms["denoising"], plain.terms["denoising"])
    assert not torch.equal(G.inputs[0][0], P.outputs[0])


def test_the_denoisers_loss_is_the_mean_absolute_error(networks):
    P = Spy(networks["P"])
    losses = Denoising()({"P": P}, Batch(photos(), 0, 0))
    torch.testing.assert_close(losses.total, (P.outputs[0] - photos()).abs().mean())


@pytest.mark.parametrize("step", range(4))
def test_g_starts_towards_the_residual_of_a_frozen_p(step, networks):
    s = 20 / 255
    P, G = Spy(networks["P"]), Spy(networks["G"])
    losses = ResidualStart(s=s)({"P": P, "G": G}, Batch(photos(), step, 0))
    (x,), (G_x,) = G.inputs[0], G.outputs
    target = (x - networks["P"](x, s)) / s**2
    torch.testing.assert_close(losses.total, s**2 * ((G_x - target) ** 2).mean())
    assert not any(p.requires_grad for p in P.outputs)


def test_the_start_for_g_has_no_loss_where_g_is_the_residual():
    s, prior = 20 / 255, diagonal_prior()
    exact = {"P": prior["P"], "G": lambda x: (x - prior["P"](x, s)) / s**2}

    def P(z, sigma):
        return prior["P"](z, sigma if isinstance(sigma, float) else sigma.view(-1, 1, 1, 1))

    losses = ResidualStart(s=s)(exact | {"P": P}, Batch(photos(), 0, 0))
    assert losses.total < 1e-12


# --- the start from the score ---------------------------------------------------------------------


def test_the_score_of_gaussian_images_is_found():
    """Of images N(0, v) without structure the score of p_s is x / (v + s^2): the best a in a x."""
    v, s = 0.2**2, 0.1
    objective = ScoreStart(s=s, noise_max=s, degraded=0.0)
    x_hat = v**0.5 * torch.randn(512, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def loss(a):
        at_s = replace(objective, noise_max=0.0)  # half of the images have no noise at all
        return at_s({"G": lambda x: a * x}, Batch(x_hat, 0, 0)).total.item()

    # with half of the images clean, the regression is that of the mean of both second moments
    best = (s**2 / 2) / (v + s**2 / 2) / s**2
    factors = [0.5 + 0.05 * i for i in range(21)]
    assert min(factors, key=lambda factor: loss(best * factor)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("degraded", [0.0, 1.0])
def test_the_score_start_has_no_error_where_g_is_the_residual(degraded):
    x_hat = photos()
    objective = ScoreStart(degraded=degraded)
    exact = {"G": lambda x: (x - x_hat) / objective.s**2}
    assert objective(exact, Batch(x_hat, 0, 0)).total.item() < 1e-9
    nothing = {"G": torch.zeros_like}
    assert 0.1 < objective(nothing, Batch(x_hat, 0, 0)).total.item() < 3
