"""What the paper leaves open, tried out on validation images."""

import json
import math
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, observe_test_image
from rglib.data.images import write_png
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import file_digest
from rglib.plan.ablations import overlaid
from rglib.plan.check import check
from rglib.plan.open_settings import (
    OPEN,
    candidates,
    open_settings,
    overlay,
    overlay_text,
    targets,
    task_of,
)
from rglib.restoration.evaluation import GroundTruth
from rglib.studies import tuning
from rglib.studies.tuning import COLUMNS, LeakError, tune, validation_images

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
CPU = torch.device("cpu")


def config(**settings):
    made = deepcopy(DEFAULT)
    made["evaluation"] |= {"solver": "adam", "iterations": 6, "tolerance": None, "average": False}
    made["tuning"] |= settings
    return made


# --- what is tuned --------------------------------------------------------------------------------


def test_what_the_paper_or_its_code_gives_is_not_tuned():
    """Only what neither the paper nor PnP-ReG says."""
    open_by_problem = {
        problem: set(open_settings(entry)) for problem, entry in DEFAULT["problems"].items()
    }
    noisy = {problem for problem, kind in PROBLEMS.items() if kind.sigma}
    released = {"completion80", "deblur_s1.6", "sr2_bicubic_n0", "sr2_bicubic_n0.01"}
    for problem in PROBLEMS:
        expected = {"lr", "s_255"}
        if problem in released:
            expected = set()
        elif problem == "completion90":
            expected = {"s_255"}  # the paper gives lr
        elif problem in noisy:
            expected = {"lr"}  # s is the noise level
        assert open_by_problem[problem] == expected, problem


def test_on_noisy_problems_s_is_the_noise_level():
    for problem, kind in PROBLEMS.items():
        if kind.sigma:
            assert DEFAULT["problems"][problem]["s_255"] == pytest.approx(255 * kind.sigma)


GUESSES = {  # lr, s and the values of these that are guesses
    "completion80": (0.01, 1.0, ""),
    "completion90": (0.025, 1.0, "s"),
    "deblur_s1.6": (0.004, 2.55, ""),
    "deblur_s2.0": (0.004, 2.55, "lr"),
    "sr2_bicubic_n0.01": (0.002, 2.55, ""),
    "sr2_bicubic_n0": (0.008, 1.2, ""),
    "sr2_gaussian_n0": (0.008, 1.2, "lr s"),
    "sr2_gaussian_n0.01": (0.002, 2.55, "lr"),
    "sr3_bicubic_n0": (0.008, 1.2, "lr s"),
    "sr3_bicubic_n0.01": (0.002, 2.55, "lr"),
    "sr3_gaussian_n0": (0.008, 1.2, "lr s"),
    "sr3_gaussian_n0.01": (0.002, 2.55, "lr"),
}


@pytest.mark.parametrize("scale", ["paper", "gpu"])
def test_nothing_tuned_for_small_networks_reaches_the_papers_scale(scale):
    overlay = yaml.safe_load((ROOT / f"config/{scale}.yaml").read_text())
    problems = overlaid(DEFAULT, overlay)["problems"]
    for problem, (lr, s, guessed) in GUESSES.items():
        entry = problems[problem]
        assert (entry["lr"], entry["s_255"]) == (lr, s), problem
        assert [key.removesuffix("_255") for key in open_settings(entry)] == guessed.split()
    sources = [
        source
        for section in (problems, overlaid(DEFAULT, overlay)["admm"])
        for entry in section.values()
        if isinstance(entry, dict)
        for source in entry["source"].values()
    ]
    assert "tuned" not in sources


def test_no_learning_rate_is_above_the_papers():
    assert max(DEFAULT["tuning"]["gradient_descent"]["lr"]) == 0.025
    assert all(entry["lr"] <= 0.025 for entry in DEFAULT["problems"].values())


def test_targets_are_problems_and_tasks_with_open_settings():
    found = targets(DEFAULT)
    assert "completion80" not in found and found["completion90"] == "gradient_descent"
    assert {t for t, algorithm in found.items() if algorithm == "pnp_admm"} == {
        "completion",
        "deblurring",
        "super_resolution",
    }


def test_only_configured_problems_are_tuned():
    some = config()
    some["problems"] = {"sr2_gaussian_n0": DEFAULT["problems"]["sr2_gaussian_n0"]}
    assert set(targets(some)) == {"sr2_gaussian_n0", "super_resolution"}


def test_tasks_are_those_of_the_problems():
    assert all(task_of(problem) == kind.task for problem, kind in PROBLEMS.items())


def test_a_problem_whose_task_does_not_show_is_named():
    says = r"problems\.denoise: .* begin with completion, deblur, sr, or .* have a degradation"
    with pytest.raises(ValueError, match=says):
        task_of("denoise", {"lr": 0.1})


def test_candidates_are_all_combinations_of_what_is_open():
    grid = {"lr": [0.1, 0.2], "s_255": [1, 2, 3]}
    both = list(candidates({"source": {"lr": "ours", "s_255": "tuned"}}, grid))
    assert len(both) == 6 and {"lr": 0.2, "s_255": 3} in both
    one = list(candidates({"source": {"lr": "paper", "s_255": "ours"}}, grid))
    assert one == [{"s_255": 1}, {"s_255": 2}, {"s_255": 3}]


# --- the images -----------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path):
    def image(number):
        path = tmp_path / f"{number}.png"
        pixels = np.full((40, 48, 3), number, np.uint8)
        pixels[12:28, 16:32] = 255 - number
        write_png(path, pixels)
        return ImageFile(str(number), path, file_digest(path))

    return Manifest("toy", "Toy", "folder", tuple(image(n) for n in range(10)))


NOTHING = Manifest("none", "None", "folder", ())


def test_images_are_spread_over_the_data_set_and_cut_in_the_middle(manifest):
    images = validation_images(manifest, count=3, crop=16, test_set=NOTHING)
    assert [image.name for image in images] == ["0", "3", "6"]
    for image in images:
        assert image.pixels.shape == (1, 3, 16, 16)
        assert torch.all(image.pixels == (255 - int(image.name)) / 255)


def test_an_image_of_the_test_set_is_refused_even_if_it_would_not_be_used(manifest):
    tested = replace(NOTHING, images=(replace(manifest.images[9], name="other"),))
    with pytest.raises(LeakError, match=r"tuning\.data: .*9\.png is .*9\.png of the test set"):
        validation_images(manifest, count=1, crop=16, test_set=tested)


def test_more_images_than_there_are_is_refused(manifest):
    with pytest.raises(ValueError, match=r"tuning\.images: Toy has 10, not 11"):
        validation_images(manifest, count=11, crop=16, test_set=NOTHING)


def test_other_data_and_fewer_images_are_taken_as_the_messages_say(manifest):
    mine, other = (
        replace(manifest, images=manifest.images[part]) for part in (slice(5), slice(5, 10))
    )
    some = config(data="mine", images=6)["tuning"]
    sets = {"mine": mine, "other": other}

    def images():
        return validation_images(sets[some["data"]], count=some["images"], crop=16, test_set=mine)

    with pytest.raises(LeakError, match=r"name another data set$") as leak:
        images()
    key = re.findall(r"^tuning\.(\w+): ", str(leak.value))[0]
    assert key in DEFAULT["tuning"]
    some[key] = "other"
    with pytest.raises(ValueError, match="not 6") as many:
        images()
    key, there = re.findall(r"^tuning\.(\w+): .* has (\d+), not 6$", str(many.value))[0]
    assert key in DEFAULT["tuning"]
    some[key] = int(there)
    assert len(images()) == 5


# --- trying out -----------------------------------------------------------------------------------


def images():
    generator = torch.Generator().manual_seed(0)
    return [GroundTruth(f"{n}", torch.rand(1, 3, 32, 32, generator=generator)) for n in range(2)]


def towards_grey(x):
    """The gradient of 1/2 ||x - 1/2||^2, times what makes it count beside the data."""
    return 3000 * (x - 0.5)


def tried(target, G=towards_grey, **settings):
    algorithm = "gradient_descent"
    return tune(target, algorithm, G, images(), method="rg", config=config(**settings), device=CPU)


def test_every_candidate_has_the_psnr_of_its_restoration():
    grid = {"lr": [0.01, 0.025], "s_255": [0.5, 3.6]}
    table = tried("sr2_gaussian_n0", gradient_descent=grid)
    assert len(table) == 4 and list(table) == list(COLUMNS)
    for _, row in table.iterrows():
        settings = json.loads(row["settings"])
        method = GradientDescent(
            towards_grey, solver=Adam(lr=settings["lr"]), s=settings["s_255"] / 255, iterations=6
        )
        reached = []
        for image in images():
            seen = observe_test_image("sr2_gaussian_n0", image.pixels)
            reached.append(psnr(method.restore(seen, lambda _: None), seen.x_hat).item())
        assert row["psnr_db"] == pytest.approx(sum(reached) / 2, abs=1e-4)
    assert table["psnr_db"].nunique() == 4
    assert table.loc[table["chosen"], "psnr_db"].tolist() == [table["psnr_db"].max()]


def test_progress_counts_the_iterations_of_all_candidates(told):
    tried("sr2_gaussian_n0", gradient_descent={"lr": [0.01, 0.025], "s_255": [0.5]})
    first, last = json.dumps({"lr": 0.01, "s_255": 0.5}), json.dumps({"lr": 0.025, "s_255": 0.5})
    expected = [
        f"tuning sr2_gaussian_n0: iteration {n} of 24, {first if n <= 12 else last}, "
        for n in range(1, 25)
    ]
    assert [line.rpartition(", ")[0] + ", " for line in told()] == expected


def test_a_candidate_that_is_not_finite_is_kept_in_the_table_and_never_chosen():
    def explosive(x):
        return x * math.inf if x.abs().max() > 1.2 else torch.zeros_like(x)

    table = tried("completion90", explosive, gradient_descent={"lr": [9.0], "s_255": [1, 2]})
    assert len(table) == 2 and table["chosen"].sum() == 1

    def worse_with_s(x):
        return torch.full_like(x, math.nan)

    with pytest.raises(ValueError, match=r"completion90 diverges .* tuning\.gradient_descent"):
        tried("completion90", worse_with_s, gradient_descent={"lr": [0.01], "s_255": [1, 2]})


def test_a_schedule_is_chosen_by_the_mean_over_the_problems_of_its_task():
    def P(x, sigma):
        return x + sigma * (0.5 - x)

    grid = {"iterations": [2, 4], "sigma_first_255": [49], "sigma_last_255": [1, 20]}
    settings = config(pnp_admm=grid, tolerance_db=0)
    table = tune("deblurring", "pnp_admm", P, images(), method="gauss", config=settings, device=CPU)
    assert set(table["problem_id"]) == {"deblur_s1.6", "deblur_s2.0"} and len(table) == 8
    means = table.groupby("settings")["psnr_db"].mean()
    np.testing.assert_allclose(
        table.groupby("settings")["target_psnr_db"].first(), means, atol=1e-9
    )
    assert set(table.loc[table["chosen"], "settings"]) == {means.idxmax()}


@pytest.mark.parametrize(("tolerance_db", "chosen"), [(0.0, 24), (0.05, 16), (1.0, 8)])
def test_of_what_is_about_as_good_the_fewest_iterations_are_chosen(
    tolerance_db, chosen, monkeypatch
):
    reached = {8: 29.5, 16: 30.0, 24: 30.02}
    monkeypatch.setattr(tuning, "mean_psnr", lambda method, *_: reached[method.schedule.iterations])
    grid = {"iterations": [8, 16, 24], "sigma_first_255": [49], "sigma_last_255": [1]}
    settings = config(pnp_admm=grid, tolerance_db=tolerance_db)
    table = tune("deblurring", "pnp_admm", None, [], method="gauss", config=settings, device=CPU)
    (settings,) = set(table.loc[table["chosen"], "settings"])
    assert json.loads(settings)["iterations"] == chosen


# --- the overlay ----------------------------------------------------------------------------------


def test_the_choice_is_an_overlay_of_the_configuration():
    rows = [
        ("gradient_descent", "completion90", {"s_255": 2.0}, True),
        ("gradient_descent", "completion90", {"s_255": 1.0}, False),
        ("pnp_admm", "deblurring", {"iterations": 8, "sigma_last_255": 5.0}, True),
        ("pnp_admm", "deblurring", {"iterations": 8, "sigma_last_255": 5.0}, True),
    ]
    columns = ["algorithm", "target", "settings", "chosen"]
    table = pd.DataFrame([(a, t, json.dumps(s), c) for a, t, s, c in rows], columns=columns)
    expected = {
        "problems": {"completion90": {"s_255": 2.0, "source": {"s_255": "tuned"}}},
        "admm": {
            "deblurring": {
                "iterations": 8,
                "sigma_last_255": 5.0,
                "source": {"iterations": "tuned", "sigma_last_255": "tuned"},
            }
        },
    }
    assert overlay(table) == expected
    text = overlay_text(table, ["Tuned on nothing."])
    assert text.startswith("# Tuned on nothing.\n") and yaml.safe_load(text) == expected
    merged = overlaid(DEFAULT, expected)
    check(merged | {"init": "scratch"}, SCHEMA)
    assert merged["problems"]["completion90"]["lr"] == 0.025
    assert merged["problems"]["completion90"]["source"] == {"lr": "paper", "s_255": "tuned"}
    assert "tuned" in OPEN  # it can be tuned again
