"""What a certificate says, held against a problem whose solution has a closed form."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rglib
from rglib.__main__ import main
from rglib.core.operators import Blur
from rglib.core.problems import PROBLEMS, DataGradient, Problem
from rglib.files import file_digest
from rglib.restoration.certificate import ETA, certified, theorem_1
from rglib.restoration.prior import Prior, problem_of
from rglib.restoration.weights_folder import Models

S = 0.5
SHAPE = (1, 3, 6, 5)
ENTRIES = 90


class Linear(nn.Module):
    """G(x) = scale Q x with 1 <= Q <= 3, symmetric."""

    def __init__(self, Q, scale=1.0):
        super().__init__()
        self.register_buffer("Q", scale * Q)

    def forward(self, x):
        return (x.flatten(1) @ self.Q.T).view(x.shape)


@pytest.fixture(scope="module")
def made(linear_prior, dense):
    """A prior with a quadratic regularizer, its problem and observation, and the exact zero."""
    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.5, 0.0], [0.0, 0.0, 0.1]])
    problem = Problem(Blur.from_kernel(kernel, height=6, width=5), sigma=S)
    Q = linear_prior(ENTRIES).Q
    settings = Models.open().settings
    prior = Prior("rerg", "gradient_descent", Linear(Q.float()), settings, torch.device("cpu"), s=S)
    y = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    A = dense(problem.A, SHAPE[1:])
    hessian = A.T @ A + S**2 * Q
    zero = torch.linalg.solve(hessian, A.T @ y.double().flatten()).view(SHAPE)
    return prior, problem, y, A, hessian, zero


def rms(x):
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("iterations", [3, 10, 200])
def test_its_numbers_are_those_of_the_closed_form(made, iterations):
    prior, problem, y, A, hessian, zero = made
    prior = prior.adjusted(iterations=iterations)
    x, certificate = certified(prior, y, problem, like="deblur_s1.6")
    gradient = hessian @ x.double().flatten() - A.T @ y.double().flatten()
    assert certificate.residual == pytest.approx(rms(gradient), rel=1e-2, abs=1e-6)
    start = hessian @ y.double().flatten() - A.T @ y.double().flatten()
    assert certificate.residual_start == pytest.approx(rms(start), rel=1e-3)
    exact = torch.linalg.matrix_norm(torch.eye(ENTRIES) - ETA * hessian, 2).item()
    assert exact - 0.02 < certificate.lipschitz <= exact + 1e-5
    assert 2.5 < certificate.slope <= 3.0 + 1e-4
    assert certificate.theorem_1.applies
    if iterations == 3:
        # what it bounds: the distance to the zero, which is known here
        assert rms(x - zero) <= certificate.theorem_1.distance * 1.05
        assert certificate.theorem_1.distance < 20 * rms(x - zero)


def test_x_is_the_same_as_without(made, tiny_models):
    prior, problem, y, *_ = made
    x, _ = certified(prior, y, problem, like="deblur_s1.6")
    assert torch.equal(x, prior.restore(y, problem, like="deblur_s1.6"))
    prior = rglib.load("mtdeq", models=tiny_models, device="cpu").adjusted(iterations=3)
    y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x, _ = certified(prior, y, "deblur_s1.6")
    assert torch.equal(x, prior.restore(y, "deblur_s1.6"))


def with_network(made, scale, **changes):
    prior, problem, y, *_ = made
    prior = replace(prior, network=Linear(prior.network.Q, scale)).adjusted(**changes)
    return certified(prior, y, problem, like="deblur_s1.6")[1]


def test_how_it_ended(made):
    assert with_network(made, 1.0).outcome == "converged"  # the shipped settings have a tolerance
    assert with_network(made, 1.0, iterations=4).outcome == "out_of_steps"
    uphill = with_network(made, -40.0, solver="adam", lr=9.0, iterations=60)
    assert uphill.outcome == "diverged"
    assert not uphill.theorem_1.applies and uphill.theorem_1.distance is None
    assert "says nothing: g is no contraction" in uphill.theorem_1.says
    beyond = with_network(made, math.inf, solver="adam", lr=1.0, iterations=3)
    assert beyond.outcome == "non_finite" and beyond.residual is None and beyond.theorem_1 is None


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({"solver": "adam", "lr": 0.01, "iterations": 7}, 6),
        ({"iterations": 7}, 6 + 9),  # and nine for the step of semi_implicit
    ],
)
def test_calls_are_counted(made, changes, calls):
    assert with_network(made, 1.0, **changes).calls == calls


def test_of_pnp_admm_there_is_no_residual(tiny_models):
    prior = rglib.load("mtdeq", models=tiny_models, device="cpu").adjusted(iterations=5)
    y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, certificate = certified(prior, y, "deblur_s1.6")
    assert (certificate.outcome, certificate.calls) == ("out_of_steps", 5)
    assert certificate.residual is certificate.lipschitz is certificate.theorem_1 is None
    assert certificate.settings["algorithm"] == "pnp_admm"
    assert certificate.settings["x0"] == "interpolated"
    assert certificate.weights == file_digest(tiny_models / "mtdeq_P.safetensors")


def test_a_rotated_G_has_the_ensemble_of_its_own(tiny_models):
    prior = rglib.load("rerg", models=tiny_models, device="cpu").adjusted(iterations=2, s=0.5)
    y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x, certificate = certified(prior, y, "deblur_s1.6")
    G = prior.network  # seen through the eight transforms, written out
    views = [(k, flip) for k in range(4) for flip in (False, True)]

    def through(k, flip):
        seen = torch.rot90(x.flip(-1) if flip else x, k, (-2, -1))
        back = torch.rot90(G(seen), -k, (-2, -1))
        return back.flip(-1) if flip else back

    with torch.no_grad():
        mean = torch.stack([through(*view) for view in views]).mean(dim=0)
        data = DataGradient(problem_of(PROBLEMS["deblur_s1.6"], y.shape).A, y)(x)
        assert certificate.residual_ensemble == pytest.approx(rms(data + 0.25 * mean), rel=1e-4)
        assert certificate.residual == pytest.approx(rms(data + 0.25 * G(x)), rel=1e-4)


def test_it_is_of_one_image(made):
    prior, problem, y, *_ = made
    with pytest.raises(ValueError, match=r"of one image \(1, 3, h, w\), got \(2, 3, 6, 5\)"):
        certified(prior, torch.cat((y, y)), problem, like="deblur_s1.6")


def test_the_distance_of_theorem_1_is_that_of_its_proof():
    """A map whose distance to its fixed point is known: g(x) = x - eta mu x, in one dimension."""
    mu, x = 0.3, 0.7
    found = theorem_1(mu * x, 1 - ETA * mu)
    assert found.applies and found.distance == pytest.approx(x)
    assert not theorem_1(0.1, 1.0).applies and not theorem_1(0.1, math.nan).applies


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("a", "b")):
        pixels = np.random.RandomState(n).randint(0, 255, (30, 34, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def restore(tiny_models, line):
    words = ["restore", *line.split(), "--models", str(tiny_models), "--iterations", "3"]
    return main([*words, "--device", "cpu", "--certificate"])


def test_it_lies_beside_each_image(here, tiny_models, capsys):
    assert restore(tiny_models, "photos --problem deblur_s1.6 -o out --method rerg") == 0
    assert "out_of_steps" not in (said := capsys.readouterr().out) and "out of steps after" in said
    names = sorted(path.name for path in (here / "out").iterdir())
    assert names == ["a.png", "a.png-certificate.json", "b.png", "b.png-certificate.json"]
    found = json.loads((here / "out/a.png-certificate.json").read_text())
    assert found["method"] == "rerg" and found["outcome"] == "out_of_steps"
    assert found["weights"] == file_digest(tiny_models / "rerg_G.safetensors")
    assert found["settings"]["iterations"] == 3 and found["problem"]["sigma"] == 0.01
    assert found["residual"] > 0 and set(found["theorem_1"]) == {"applies", "distance", "says"}


def test_a_certificate_that_is_there_is_not_overwritten(here, tiny_models, capsys):
    (here / "x.png-certificate.json").write_text("mine")
    line = "photos/a.png --problem deblur_s1.6 -o x.png"
    assert restore(tiny_models, line) == 2
    assert "x.png-certificate.json is there already" in capsys.readouterr().err
    assert not (here / "x.png").exists()
    assert restore(tiny_models, f"{line} --overwrite") == 0
    assert json.loads((here / "x.png-certificate.json").read_text())["method"] == "mtdeq"
