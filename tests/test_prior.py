import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import rglib
from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam, SemiImplicit
from rglib.core.networks import WeightsError, build, load_into, save_weights
from rglib.core.operators import Blur, Downsample, Identity, Mask, Operator, gaussian_kernel
from rglib.core.problems import (
    PROBLEMS,
    KernelBlur,
    KnownPixels,
    Problem,
    SeededImage,
    observe,
    observe_test_image,
)
from rglib.plan.ablations import overlaid
from rglib.restoration.prior import nearest, observed, problem_of
from rglib.restoration.restorers import restorer
from rglib.restoration.weights_folder import Models

METHODS = ["gauss", "mtdeq", "pnpreg", "rg1", "deqgd", "rerg"]
UNMASKED = [id for id, degradation in PROBLEMS.items() if degradation.task != "completion"]


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 72, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def load(tiny_models):
    """`rglib.load` from the folder of small networks."""
    return lambda method, **options: rglib.load(method, models=tiny_models, device="cpu", **options)


def of_the_tables(method, problem_id, seen, tiny, tiny_models):
    """The restoration as `rglib.restoration.restorers` makes it for the tables."""
    found = Models.open(tiny_models)
    entry = found.settings["methods"][method]
    network = tiny("P" if entry["algorithm"] == "pnp_admm" else "G")
    load_into(network, found.weights(method))
    return restorer(entry["algorithm"], problem_id, network.eval(), found.settings).restore(
        seen, lambda _: None
    )


@pytest.mark.parametrize("method", ["gauss", "rerg"])
@pytest.mark.parametrize("problem_id", PROBLEMS)
def test_a_prior_restores_as_the_tables_do(method, problem_id, image, load, tiny, tiny_models):
    seen = observe_test_image(problem_id, image)
    ours = load(method).restore(seen.y, seen.problem, like=problem_id)
    assert torch.equal(ours, of_the_tables(method, problem_id, seen, tiny, tiny_models))
    if problem_id in UNMASKED:
        assert torch.equal(ours, load(method).restore(seen.y, problem_id))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_restores_with_its_own_network(method, image, load, tiny, tiny_models):
    seen = observe_test_image("deblur_s1.6", image)
    ours = load(method).restore(seen.y, "deblur_s1.6")
    assert torch.equal(ours, of_the_tables(method, "deblur_s1.6", seen, tiny, tiny_models))


@pytest.mark.parametrize("problem_id", PROBLEMS)
def test_it_starts_where_the_tables_do(problem_id, image):
    seen = observe_test_image(problem_id, image)
    ours = observed(seen.y, seen.problem)
    assert torch.equal(ours.x0, seen.x0)
    assert ours.x_hat.isnan().all()


@pytest.mark.parametrize("problem_id", UNMASKED)
def test_the_operator_is_found_from_the_size_of_the_observation(problem_id, image):
    seen = observe_test_image(problem_id, image)
    A = problem_of(PROBLEMS[problem_id], seen.y.shape).A
    assert torch.equal(A(seen.x_hat), seen.problem.A(seen.x_hat))


def test_images_of_a_batch_are_restored_each_as_alone(load):
    y = torch.rand(2, 3, 32, 32)
    prior = load("pnpreg").adjusted(iterations=4)  # a random G diverges, and rounding grows with it
    both = prior.restore(y, "sr3_gaussian_n0")
    assert both.shape == (2, 3, 96, 96)
    alone = torch.cat([prior.restore(one[None], "sr3_gaussian_n0") for one in y])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)


# --- settings -------------------------------------------------------------------------------------


def test_settings_come_from_the_folder_and_can_be_adjusted(load):
    problem = Problem(Identity(), 0.01)
    assert load("rerg").method(problem).solver == SemiImplicit()
    prior = load("rerg").adjusted(solver="adam")
    method = prior.method(problem, like="deblur_s2.0")
    table = prior.settings["problems"]["deblur_s2.0"]
    assert (method.solver, method.s) == (Adam(lr=table["lr"]), table["s_255"] / 255)
    assert method.iterations == prior.settings["evaluation"]["iterations"]
    adjusted = prior.adjusted(lr=0.5, s=0.25, iterations=3, tile_above=4096)
    expected = replace(method, solver=Adam(lr=0.5), s=0.25, iterations=3, tile_above=4096)
    assert adjusted.method(problem, like="deblur_s2.0") == expected
    assert prior.method(problem, like="deblur_s2.0") == method
    assert prior.adjusted().method(problem, like="deblur_s2.0") == method


def test_adam_does_not_take_over_what_the_shipped_settings_say_for_another_solver(load):
    prior = load("rerg")
    shipped = {"solver": "semi_implicit", "tolerance": 1e-7, "average": True, "x0": "interpolated"}
    prior = replace(prior, settings=overlaid(prior.settings, {"evaluation": shipped}))
    problem = Problem(Identity(), 0.01)
    untouched = prior.adjusted(iterations=9).method(problem)
    assert (untouched.tolerance, untouched.average, untouched.x0) == (1e-7, True, "interpolated")
    adam = prior.adjusted(solver="adam").method(problem)
    assert (adam.tolerance, adam.average, adam.x0) == (None, False, "released")
    again = prior.adjusted(solver="semi_implicit").method(problem)
    assert (again.average, again.x0) == (True, "interpolated")


def test_the_solver_can_be_another(load, image):
    prior = load("rerg").adjusted(solver="adam", iterations=3)
    assert isinstance(prior.method(Problem(Identity(), 0.01)).solver, Adam)
    assert not torch.equal(
        prior.restore(image, "deblur_s1.6"),
        load("rerg").adjusted(iterations=3).restore(image, "deblur_s1.6"),
    )


def test_a_method_may_have_its_own_evaluation(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models, tmp_path / "models")
    settings = json.loads((folder / "settings.json").read_text())
    settings["methods"]["rerg"]["evaluation"] = {"ensemble": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    problem = Problem(Identity(), 0.01)
    assert not rglib.load("rerg", models=folder).method(problem).ensemble
    assert rglib.load("rg1", models=folder).method(problem).ensemble


def test_iterations_count(load, image):
    prior = load("gauss")
    assert prior.adjusted(iterations=3).method(Problem(Identity(), 0.01)).schedule.iterations == 3
    few, more = (prior.adjusted(iterations=n).restore(image, "deblur_s1.6") for n in (1, 2))
    assert not torch.equal(few, more)
    start_alone = load("rerg").adjusted(iterations=1).restore(image, "deblur_s1.6")
    assert torch.equal(start_alone, image)


@given(sigma=st.floats(1e-4, 0.5))
def test_s_is_another_noise_level(load, sigma):
    method = load("rerg").method(Problem(Identity(), sigma), like="sr2_bicubic_n0")
    assert method.s == sigma


def test_without_noise_s_is_that_of_the_tables(load):
    prior = load("rerg")
    blur = Problem(Blur.gaussian(1.6, height=32, width=32), 0.0)
    assert prior.method(blur).s == prior.settings["problems"]["deblur_s1.6"]["s_255"] / 255


@pytest.mark.parametrize(("sigma", "last"), [(0.0, 30 / 255), (0.01, 30 / 255), (0.2, 0.2)])
def test_pnp_admm_ends_no_lower_than_at_the_noise(load, sigma, last):
    assert load("gauss").settings["admm"]["deblurring"]["sigma_last_255"] == 30
    assert load("gauss").method(Problem(Identity(), sigma)).schedule.sigma_last == last


# --- problems that are none of the tables' --------------------------------------------------------


@pytest.mark.parametrize("problem_id", PROBLEMS)
def test_a_problem_of_the_tables_is_nearest_to_itself(problem_id):
    image = torch.rand(1, 3, 96, 96)
    assert nearest(observe_test_image(problem_id, image).problem, PROBLEMS) == problem_id


def downsampled(factor, kernel, sigma):
    return Problem(Downsample.by(factor, kernel=kernel, height=48, width=48), sigma)


def known(share):
    mask = torch.zeros(1, 1, 10, 10)
    mask.view(-1)[: round(100 * share)] = 1
    return Problem(Mask(mask), 0.0)


def blurred(sigma_b, sigma=0.01, side=64):
    return Problem(Blur.gaussian(sigma_b, height=side, width=side), sigma)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (known(0.5), "completion80"),
        (known(0.16), "completion80"),
        (known(0.03), "completion90"),
        (blurred(0.5), "deblur_s1.6"),
        (blurred(3.0), "deblur_s2.0"),
        (blurred(3.0, sigma=0.0), "deblur_s2.0"),
        (Problem(Identity(), 0.1), "deblur_s1.6"),
        (
            Problem(Blur.from_kernel(torch.ones(5, 9) / 45, height=16, width=16), 0.01),
            "deblur_s2.0",
        ),
        (downsampled(4, "bicubic", 0.0), "sr3_bicubic_n0"),
        (downsampled(4, "gaussian", 0.05), "sr3_gaussian_n0.01"),
        (downsampled(2, "gaussian", 0.05), "sr2_gaussian_n0.01"),
    ],
)
def test_the_nearest_problem(problem, expected):
    assert nearest(problem, PROBLEMS) == expected


def test_own_kernels_and_masks_are_degradations_as_the_tables_are(image):
    kernel = gaussian_kernel(1.6, size=25)
    own = observe(KernelBlur(kernel, 0.01), image, SeededImage())
    table = observe(PROBLEMS["deblur_s1.6"], image, SeededImage())
    assert torch.equal(own.y, table.y) and torch.equal(own.x0, table.x0)
    table = observe_test_image("completion80", image)
    own = observe(KnownPixels(table.problem.A.mask), image, SeededImage())
    assert torch.equal(own.y, table.y) and torch.equal(own.x0, table.x0)


class Inverted(Operator):
    """An operator of a user's own."""

    squared_norm = 1.0

    def __call__(self, x):
        return -x

    adjoint = __call__

    def prox(self, u, y, rho):
        return (rho * u - y) / (1 + rho)

    def to(self, device):
        return self


def test_an_operator_of_your_own_needs_to_be_told_whose_settings_to_take(load, image):
    prior, problem = load("rerg"), Problem(Inverted(), 0.01)
    with pytest.raises(
        ValueError, match=r"operator like Inverted: name .* `like`, of completion80"
    ):
        prior.restore(-image, problem)
    assert prior.restore(-image, problem, like="deblur_s1.6").shape == image.shape


def test_a_problem_and_a_network_of_your_own_are_restored_with(
    image, tiny_models, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(__file__).parent.parent)  # where examples/ lies
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = shutil.copytree(tiny_models, tmp_path / "models")
    settings = json.loads((folder / "settings.json").read_text())
    for name in ("motion", "dncnn"):
        overlay = yaml.safe_load(Path(f"examples/{name}.yaml").read_text())
        settings["problems"] |= overlay.get("problems", {})
    (folder / "settings.json").write_text(json.dumps(settings))
    network = {"widths": [4, 6, 8, 8], "blocks": 1, **overlay["network"]}
    (folder / "rerg.card.json").write_text(json.dumps({"stage": "rerg", "network": network}))
    G = build("G", **network)
    save_weights(folder / "rerg_G.safetensors", G.state_dict())

    prior = rglib.load("rerg", models=folder, device="cpu").adjusted(solver="adam")
    kernel = torch.full((1, 9), 1 / 9)
    seen = observe(KernelBlur(kernel, 0.01), image, SeededImage())
    table = settings["problems"]["motion9"]
    expected = GradientDescent(
        G,
        solver=Adam(lr=table["lr"]),
        s=table["s_255"] / 255,
        iterations=settings["evaluation"]["iterations"],
    )
    x = expected.restore(seen, lambda _: None)
    assert torch.equal(prior.restore(seen.y, "motion9"), x)
    assert torch.equal(prior.restore(seen.y, seen.problem, like="motion9"), x)


# --- mistakes -------------------------------------------------------------------------------------

Y = torch.rand(1, 3, 32, 32)
SMALL_MASK = Problem(Mask(torch.ones(1, 1, 8, 8)), 0.0)


@pytest.mark.parametrize(
    ("y", "problem", "options", "message"),
    [
        (Y, "sr5", {}, "unknown problem 'sr5'; there are completion80, "),
        (Y, "completion80", {}, "which pixels are known: give Problem"),
        (Y, "deblur_s1.6", {"like": "deblur"}, "unknown problem 'deblur'; there are"),
        (Y[0], "deblur_s1.6", {}, r"float tensor \(B, 3, h, w\).* got torch.float32 \(3, 32, 32\)"),
        (Y[:, :1], "deblur_s1.6", {}, "float tensor"),
        ((255 * Y).byte(), "deblur_s1.6", {}, r"got torch.uint8.*images\.read_image"),
        (Y.numpy(), "deblur_s1.6", {}, "got ndarray"),
        (Y / 0, "deblur_s1.6", {}, "not finite"),
        (Y * 255, "deblur_s1.6", {}, "must be on \\[0, 1\\] but for noise: divide it by its white"),
        (Y[..., :20], "deblur_s1.6", {}, "25x25 blur kernel does not fit an image of 32x20"),
        (Y, SMALL_MASK, {}, "operator does not fit y of 32x32 pixels"),
        (Y, downsampled(2, "bicubic", 0.0), {}, "operator does not fit y of 32x32 pixels"),
    ],
)
def test_mistakes_are_named(load, y, problem, options, message):
    with pytest.raises(ValueError, match=message):
        load("rerg").restore(y, problem, **options)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("rerg", {"iterations": 0}, "iterations: 0 is not allowed; must be at least 1"),
        ("rerg", {"lr": -1.0}, "lr: -1.0 is not allowed"),
        ("rerg", {"s": float("nan")}, "s: nan is not allowed"),
        ("rerg", {"tile_above": 4095}, "tile_above: 4095 is not allowed; must be at least 4096"),
        ("rerg", {"solver": "newton"}, "solver: unknown 'newton'; there are adam and"),
        ("rerg", {"solver": "semi_implicit", "lr": 1.0}, "semi_implicit has no learning rate"),
        ("gauss", {"lr": 1.0}, "lr: gauss restores by PnP-ADMM"),
        ("gauss", {"s": 1.0}, "s: gauss restores by PnP-ADMM"),
        ("gauss", {"solver": "adam"}, "solver: gauss restores by PnP-ADMM"),
        ("gauss", {"tile_above": 1}, "tile_above: gauss restores by PnP-ADMM"),
    ],
)
def test_settings_that_cannot_be(load, method, settings, message):
    with pytest.raises(ValueError, match=message):
        load(method).adjusted(**settings)


@pytest.mark.parametrize("sigma", [-0.1, 2.55, float("nan")])
def test_a_noise_level_that_cannot_be(load, image, sigma):
    with pytest.raises(ValueError, match=f"sigma: {sigma} is not allowed; must be on"):
        load("mtdeq").restore(image, Problem(Identity(), sigma))


def test_a_device_that_nobody_knows(tiny_models):
    with pytest.raises(ValueError, match="device: unknown 'gpu'; there are auto, cpu, cuda"):
        rglib.load("rerg", models=tiny_models, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(tiny_models):
    with pytest.raises(ValueError, match="device: cuda"):
        rglib.load("rerg", models=tiny_models, device="cuda")


def test_bfloat16_is_near(load, image):
    exact, near = (
        load("pnpreg", precision=p).adjusted(solver="adam").restore(image, "deblur_s1.6")
        for p in ("float32", "bfloat16")
    )
    assert not torch.equal(exact, near)
    assert (exact - near).square().mean().sqrt() < 0.02


def test_weights_of_another_size_than_the_card_says_are_refused(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models, tmp_path / "models")
    card = folder / "rerg.card.json"
    card.write_text(card.read_text().replace("[4, 6, 8, 8]", "[4, 6, 8, 10]"))
    with pytest.raises(WeightsError, match=r"rerg_G\.safetensors: weights of another network"):
        rglib.load("rerg", models=folder)


def test_importing_the_package_is_quick_and_names_are_checked():
    code = "import sys, rglib; early = 'torch' in sys.modules; rglib.load; "
    code += "print(early, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rglib.nothing  # noqa: B018
