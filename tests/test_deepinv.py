"""rglib in deepinv's hands: skipped, with the reason, where deepinv cannot be imported."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rglib
from rglib.core.maps import RegularizedGradient
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, DataGradient, KernelBlur, Problem, observe_test_image

try:
    import deepinv
    from deepinv.optim import GD, L2, PGD, RED, PnP
except Exception as error:  # a torchvision for another PyTorch raises RuntimeError
    reason = f"deepinv cannot be imported ({type(error).__name__}: {error})"
    pytest.skip(reason, allow_module_level=True)

from rglib.integrations import deepinv as integration

ROOT = Path(__file__).parent.parent


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def image():
    """Smooth, 48x51."""
    i, j = torch.meshgrid(torch.arange(48.0), torch.arange(51.0), indexing="ij")
    waves = [0.5 + 0.35 * torch.sin(i / (5 + k) + j / (8 - k)) for k in range(3)]
    return torch.stack(waves)[None]


# --- the problems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_is_that_of_the_tables(image, problem):
    posed, seen = integration.posed(problem, image), observe_test_image(problem, image)
    for ours, theirs in ((posed.x_hat, seen.x_hat), (posed.y, seen.y), (posed.x0, seen.x0)):
        assert torch.equal(ours, theirs)
    assert torch.equal(posed.physics(posed.x_hat), seen.y)
    assert torch.equal(posed.physics(posed.x_hat), seen.y)  # and every time
    assert torch.equal(posed.physics.A(posed.x_hat), seen.problem.A(seen.x_hat))
    product = (posed.physics.A(posed.x_hat) * posed.y).sum().item()
    adjoint = (posed.x_hat * posed.physics.A_adjoint(posed.y)).sum().item()
    assert product == pytest.approx(adjoint, rel=1e-4)


@pytest.mark.parametrize("problem", ["completion80", "deblur_s2.0", "sr3_bicubic_n0.01"])
def test_the_data_fidelity_of_theirs_has_our_gradient_and_prox(image, problem):
    posed = integration.posed(problem, image)
    D = DataGradient(posed.physics.operator, posed.y)
    torch.testing.assert_close(L2().grad(posed.x0, posed.y, posed.physics), D(posed.x0))
    x = L2().prox(posed.x0, posed.y, posed.physics, gamma=20.0)
    # the optimality condition of the prox: x - z + gamma D(x) = 0
    torch.testing.assert_close(posed.x0 - 20 * D(x), x, atol=2e-5, rtol=0)
    # and their own solver, which knows A and A^T alone
    theirs = deepinv.physics.LinearPhysics.prox_l2(
        posed.physics, posed.x0, posed.y, 20.0, solver="CG", max_iter=300, tol=1e-7
    )
    torch.testing.assert_close(x, theirs, atol=2e-4, rtol=0)


def test_every_image_of_a_batch_has_the_same_noise_as_in_the_tables(image):
    posed = integration.posed("deblur_s1.6", image)
    both = posed.physics(torch.cat((posed.x_hat, 0 * posed.x_hat)))
    torch.testing.assert_close(both[:1], posed.y)
    noise = both[1:] - posed.physics.A(0 * posed.x_hat)
    torch.testing.assert_close(noise, posed.y - posed.physics.A(posed.x_hat), atol=1e-6, rtol=0)


def test_another_seed_and_a_degradation_of_your_own(image):
    a, b = (integration.posed("deblur_s1.6", image, seed=seed) for seed in (0, 1))
    assert not torch.equal(a.y, b.y)
    motion = KernelBlur(torch.full((1, 9), 1 / 9), sigma=0.02)
    posed = integration.posed(motion, image)
    assert (posed.y - posed.physics.A(image)).std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("problem", "shape", "said"),
    [
        ("deblur", (1, 3, 40, 40), "unknown problem 'deblur'; there are completion80"),
        ("deblur_s1.6", (2, 3, 40, 40), r"image must be \(1, 3, H, W\), got \(2, 3, 40, 40\)"),
        ("deblur_s1.6", (3, 40, 40), r"image must be \(1, 3, H, W\), got \(3, 40, 40\)"),
    ],
)
def test_mistakes_are_named(problem, shape, said):
    with pytest.raises(ValueError, match=said):
        integration.posed(problem, torch.zeros(shape))


# --- the networks ---------------------------------------------------------------------------------


def test_their_gradient_descent_takes_our_steps(image, tiny_models):
    prior = integration.prior("rerg", models=tiny_models, device="cpu")
    posed = integration.posed("sr2_bicubic_n0", image)
    s, gamma = 0.3, 0.4
    model = GD(data_fidelity=L2(), prior=prior, lambda_reg=s**2, stepsize=gamma, max_iter=5)
    with torch.no_grad():
        x = model(posed.y, posed.physics, init=posed.x0)
        F = RegularizedGradient(prior.G, DataGradient(posed.physics.operator, posed.y), s)
        expected = posed.x0
        for _ in range(5):
            expected = expected - gamma * F(expected)
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=1e-5)
    assert (x - posed.x0).abs().max() > 0.01


def test_their_proximal_gradient_descent_takes_our_semi_implicit_steps(image, tiny_models):
    prior = integration.prior("rerg", models=tiny_models, device="cpu")
    posed, s, tau = integration.posed("deblur_s1.6", image), 0.3, 0.5
    options = {"lambda_reg": s**2, "stepsize": tau / s**2, "max_iter": 4, "g_first": True}
    with torch.no_grad():
        x = PGD(data_fidelity=L2(), prior=prior, **options)(posed.y, posed.physics, init=posed.x0)
        F = RegularizedGradient(prior.G, DataGradient(posed.physics.operator, posed.y), s)
        expected = posed.x0
        for _ in range(4):
            expected = F.semi_implicit(expected, torch.full((1, 1, 1, 1), tau))
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-4)


def test_P_is_a_denoiser_of_theirs(image, tiny_models):
    denoiser = integration.denoiser("mtdeq", models=tiny_models, device="cpu")
    assert isinstance(denoiser, deepinv.models.Denoiser)
    P = rglib.load("mtdeq", models=tiny_models, device="cpu").network
    with torch.no_grad():
        assert torch.equal(denoiser(image, 0.1), P(image, 0.1))
        sigma = torch.tensor([0.1, 0.2])
        both = torch.cat((image, image))
        assert torch.equal(denoiser(both, sigma), P(both, sigma))
        torch.testing.assert_close(PnP(denoiser).prox(image, 0.1), P(image, 0.1))
        torch.testing.assert_close(RED(denoiser).grad(image, 0.1), image - P(image, 0.1))


def test_a_gradient_can_be_trained_through(image, tiny):
    prior = integration.GradientPrior(tiny("G"))
    prior.grad(image).square().mean().backward()
    assert all(weight.grad is not None for weight in prior.parameters())
    assert len(list(prior.parameters())) == len(list(tiny("G").parameters()))


@pytest.mark.parametrize(
    ("make", "method", "said"),
    [
        (integration.prior, "mtdeq", r"mtdeq restores with a P: use denoiser\(\)"),
        (integration.denoiser, "rerg", r"rerg restores with a G: use prior\(\)"),
    ],
)
def test_the_wrong_kind_of_method_is_named(make, method, said, tiny_models):
    with pytest.raises(ValueError, match=said):
        make(method, models=tiny_models)


def test_the_shipped_network_restores_in_their_hands_as_in_ours(image):
    """To the same zero of D + s^2 G, by their algorithm and by ours."""
    posed, s = integration.posed("deblur_s1.6", image), 0.01
    prior = integration.prior("rerg", device="cpu")
    options = {"lambda_reg": s**2, "stepsize": 10.0, "max_iter": 300, "g_first": True}
    ours = rglib.load("rerg", device="cpu").adjusted(iterations=300)
    method = ours.method(Problem(posed.physics.operator, s), like="deblur_s1.6")
    seen = observe_test_image("deblur_s1.6", image)
    with torch.no_grad():
        theirs = PGD(data_fidelity=L2(), prior=prior, **options)(
            posed.y, posed.physics, init=posed.x0
        )
        x = replace(method, ensemble=False).restore(seen, lambda _: None)
    start, end = psnr(posed.x0, posed.x_hat).item(), psnr(theirs, posed.x_hat).item()
    assert end > start + 3
    assert psnr(x, posed.x_hat).item() == pytest.approx(end, abs=0.05)
    assert psnr(theirs, x).item() > 50


# --- the page -------------------------------------------------------------------------------------


def test_the_page_can_be_followed(tmp_path):
    """Its blocks of Python, one after another in one session, on a small photograph."""
    page = (ROOT / "docs/deepinv.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 3
    source = "\n".join(blocks).replace("[:128, 160:288]", "[32:96, 180:244]")
    source = source.replace("max_iter=300", "max_iter=20") + (
        "\nimport json; print(json.dumps(sorted(numbers.items())))\n"
    )
    (tmp_path / "followed.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "followed.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers = dict(json.loads(done.stdout.strip().splitlines()[-1]))
    assert numbers["GD"] > numbers["start"] and numbers["PGD"] > numbers["start"]
