import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tqdm.std import tqdm

from rglib.core.algorithms import GradientDescent, PnPADMM
from rglib.core.fixed_point import Adam
from rglib.core.metrics import psnr, ssim
from rglib.core.networks import InferenceOnly, WeightsError, save_weights
from rglib.core.problems import PROBLEMS as EVERY_PROBLEM
from rglib.core.problems import observe_image, observe_test_image
from rglib.core.tensors import to_tensor
from rglib.data.datasets import resolve
from rglib.data.images import ImageError, read_image, write_png
from rglib.data.manifest import ImageFile, Manifest
from rglib.report.evaluations import read_results
from rglib.restoration import evaluation
from rglib.restoration.evaluation import (
    EvaluationFiles,
    check_sizes,
    evaluate,
    evaluate_method,
    write_observation,
)
from rglib.restoration.restorers import restorer

CPU = torch.device("cpu")
PROBLEMS = ("completion80", "deblur_s1.6")
NETWORK = {"widths": [4, 6, 8, 8], "blocks": 1}
SOURCE = {"lr": "ours", "s_255": "ours"}
EVALUATION = {
    "solver": "adam",
    "iterations": 4,
    "ensemble": True,
    "tile_above": None,
    "tolerance": None,
    "batch": 1,
    "compile": False,
    "average": False,
    "x0": "released",
}
SETTINGS = {
    "evaluation": EVALUATION,
    "problems": {p: {"lr": 0.01, "s_255": 2.55, "source": SOURCE} for p in PROBLEMS},
}
ADMM = {
    "evaluation": EVALUATION | {"ensemble": False},
    "admm": {
        "sigma_min_255": 0.255,
        "completion": {"iterations": 5, "sigma_first_255": 255, "sigma_last_255": 1},
        "deblurring": {"iterations": 3, "sigma_first_255": 49, "sigma_last_255": 1},
    },
}


@pytest.fixture
def files(tmp_path):
    return EvaluationFiles(
        results=tmp_path / "results.csv",
        curves=tmp_path / "curves.csv",
        images=tmp_path / "images",
        kept=tmp_path / "kept",
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("test set"), []
    for seed, name in enumerate(("one", "two")):
        pixels = np.random.default_rng(seed).integers(0, 256, (33, 41, 3), np.uint8)
        write_png(folder / f"{name}.png", pixels)
        digest = hashlib.sha256((folder / f"{name}.png").read_bytes()).hexdigest()
        images.append(ImageFile(name, folder / f"{name}.png", digest))
    return Manifest("toy", "Toy", "folder", tuple(images))


@pytest.fixture(scope="module")
def images(manifest):
    return evaluation.read_test_images(manifest)


def stay(x0, x_hat):
    return x0


class Scripted:
    """A method that shows x0 and given functions of x0 and x_hat, and counts its images."""

    def __init__(self, *iterates):
        self.iterates, self.asked = iterates, 0
        self.recorded = 1 + len(iterates)

    def restore(self, seen, record):
        self.asked += 1
        for iterate in (stay, *self.iterates):
            record(x := iterate(seen.x0, seen.x_hat))
        return x


def run(methods, images, files, fingerprints=None, batch=1):
    evaluate(
        {"method": "rerg", "seed": 5},
        methods,
        images,
        files,
        fingerprints=fingerprints or dict.fromkeys(methods, "same"),
        device=CPU,
        batch=batch,
    )
    return pd.read_csv(files.results), pd.read_csv(files.curves)


format_sizeof = tqdm.format_sizeof


# --- what is written ------------------------------------------------------------------------------


def test_a_row_reports_the_last_iterate_and_the_best_beside_it(images, files):
    def better(x0, x_hat):
        return (x0 + x_hat) / 2

    def worse(x0, x_hat):
        return x0 + 2

    results, curves = run({"completion80": Scripted(better, worse)}, images, files)
    assert results["image"].tolist() == ["one", "two"]
    for image, row in zip(images, results.itertuples(), strict=True):
        seen = observe_test_image("completion80", image.pixels)
        assert (row.method, row.problem_id) == ("rerg", "completion80")
        assert (row.height, row.width) == (33, 41)
        assert row.psnr_start_db == pytest.approx(psnr(seen.x0, seen.x_hat).item(), abs=1e-4)
        assert row.ssim_start == pytest.approx(ssim(seen.x0, seen.x_hat).item())
        last, best = (f(seen.x0, seen.x_hat) for f in (worse, better))
        assert row.psnr_db == pytest.approx(psnr(last, seen.x_hat).item(), abs=1e-4)
        assert row.ssim == pytest.approx(ssim(last, seen.x_hat).item())
        assert row.psnr_best_db == pytest.approx(psnr(best, seen.x_hat).item(), abs=1e-4)
        assert (row.iteration_best, row.iterations, row.outcome) == (1, 2, "finished")
        curve = curves[curves["image"] == image.name]
        assert curve["iteration"].tolist() == [0, 1, 2]
        assert curve["psnr_db"].iloc[0] == pytest.approx(row.psnr_start_db, abs=1e-4)


def test_progress_counts_the_pixels_of_the_iterates_of_what_is_missing(images, files, told):
    methods = {problem: Scripted(stay, stay) for problem in PROBLEMS}
    run({"completion80": methods["completion80"]}, images, files)
    assert [line.split(", ")[0] for line in told()] == [
        f"rerg: pixel {format_sizeof(n * 33 * 41)} of {format_sizeof(6 * 33 * 41)}"
        for n in range(1, 7)
    ]
    run(methods, images, files)  # one of the two problems is kept
    again, done = told()[6:], 6 * 33 * 41
    assert [line.split(", ")[0] for line in again] == [
        f"rerg: pixel {format_sizeof(done + n * 32 * 40)} of {format_sizeof(done + 6 * 32 * 40)}"
        for n in range(1, 7)
    ]
    assert [line.split(", ")[1] for line in again] == ["deblur_s1.6 one"] * 3 + [
        "deblur_s1.6 two"
    ] * 3


def test_results_follow_the_order_of_the_problems_and_images_lie_in_their_folders(images, files):
    methods = {problem: Scripted(stay) for problem in reversed(PROBLEMS)}
    results, _ = run(methods, images, files)
    assert results["problem_id"].tolist() == ["deblur_s1.6"] * 2 + ["completion80"] * 2
    for problem in PROBLEMS:
        for image in images:
            seen = observe_test_image(problem, image.pixels)
            written = to_tensor(read_image(files.images / problem / f"{image.name}.png"))
            assert written.shape == seen.x_hat.shape  # the deblurring crop among them
            assert (written - seen.x0.clamp(0, 1)).abs().max() <= 0.5001 / 255


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (101.0, "diverged"),
        (-1e30, "diverged"),
        (torch.nan, "non_finite"),
        (torch.inf, "non_finite"),
    ],
)
def test_a_failed_restoration_is_a_row_with_its_outcome_and_no_error(value, outcome, images, files):
    results, _ = run({"completion80": Scripted(lambda x0, x_hat: x0 + value)}, images, files)
    assert results["outcome"].tolist() == [outcome] * 2
    assert np.isfinite(results["psnr_best_db"]).all()
    assert (results["iteration_best"] == 0).all()
    Image.open(files.images / "completion80" / "one.png").verify()


def test_one_bad_pixel_is_enough_to_be_non_finite(images, files):
    def spoil(x0, x_hat):
        x = x0.clone()
        x[0, 1, 2, 3] = torch.nan
        return x

    results, _ = run({"completion80": Scripted(spoil)}, images, files)
    assert results["outcome"].tolist() == ["non_finite"] * 2


# --- what is kept ---------------------------------------------------------------------------------


def test_finished_problems_are_not_computed_again(images, files):
    first = {problem: Scripted(stay) for problem in PROBLEMS}
    before = run(first, images, files)
    again = {problem: Scripted(lambda x0, x_hat: 0 * x0) for problem in PROBLEMS}
    after = run(again, images, files)
    assert [method.asked for method in first.values()] == [2, 2]
    assert [method.asked for method in again.values()] == [0, 0]
    for old, new in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(old, new)


def test_a_changed_fingerprint_computes_its_problem_alone(images, files):
    run({problem: Scripted(stay) for problem in PROBLEMS}, images, files)
    changed = {problem: Scripted(lambda x0, x_hat: x0 + 9) for problem in PROBLEMS}
    results, _ = run(changed, images, files, {"completion80": "same", "deblur_s1.6": "other"})
    assert [method.asked for method in changed.values()] == [0, 2]
    assert results["psnr_db"].iloc[0] > 0 > results["psnr_db"].iloc[-1]


@pytest.mark.parametrize("damage", ["results.csv", "curves.csv", "images/one.png", "images"])
def test_what_is_kept_is_computed_again_where_it_was_damaged(images, files, damage):
    before, _ = run({problem: Scripted(stay) for problem in PROBLEMS}, images, files)
    path = files.kept / "completion80" / damage
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[:-3])
    again = {problem: Scripted(stay) for problem in PROBLEMS}
    after, _ = run(again, images, files)
    assert [method.asked for method in again.values()] == [2, 0]
    pd.testing.assert_frame_equal(before.drop(columns="seconds"), after.drop(columns="seconds"))


def test_an_interrupted_evaluation_keeps_the_problems_it_finished(images, files):
    def interrupt(x0, x_hat):
        raise KeyboardInterrupt

    methods = {"completion80": Scripted(stay), "deblur_s1.6": Scripted(interrupt)}
    with pytest.raises(KeyboardInterrupt):
        run(methods, images, files)
    assert not files.results.exists()
    again = {problem: Scripted(stay) for problem in PROBLEMS}
    results, _ = run(again, images, files)
    assert [method.asked for method in again.values()] == [0, 2]
    assert len(results) == 4


# --- several restorations at a time ---------------------------------------------------------------


@pytest.fixture
def descents(tiny):
    """Gradient descents of which two may share a batch."""
    G = tiny("G")
    return {
        "completion80": GradientDescent(G, solver=Adam(lr=0.01), s=0.1, iterations=5),
        "completion90": GradientDescent(G, solver=Adam(lr=0.01), s=0.3, iterations=5),
        "deblur_s1.6": GradientDescent(G, solver=Adam(lr=0.02), s=0.3, iterations=5),
    }


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_in_batches_the_results_are_the_same_but_for_rounding(descents, images, files, batch):
    alone, curves = run(descents, images, files, dict.fromkeys(descents, "alone"))
    sizes = []

    def spy(module, inputs):
        sizes.append(len(inputs[0]))

    with descents["completion80"].G.register_forward_pre_hook(spy):
        prints = dict.fromkeys(descents, "together")
        together, curves_together = run(descents, images, files, prints, batch)
    assert sum(sizes) == 3 * 2 * (4 + 2)  # problems, images, steps and two residuals
    assert max(sizes) == min(batch, 4)  # the third problem has another learning rate
    pd.testing.assert_frame_equal(
        together.drop(columns="seconds"), alone.drop(columns="seconds"), rtol=1e-4
    )
    pd.testing.assert_frame_equal(curves_together, curves, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_residual_of_each_image_is_in_its_row(descents, images, files, batch):
    results, _ = run(descents, images, files, batch=batch)
    rows = results.set_index(["problem_id", "image"])
    for problem, method in descents.items():
        for image in images:
            seen = observe_image(EVERY_PROBLEM[problem], image.pixels)
            A, row = seen.problem.A, rows.loc[(problem, image.name)]
            ends = []
            method.restore(seen, lambda x, ends=ends: ends.append(x.clone()))
            for x, found in ((ends[0], row.residual_start), (ends[-1], row.residual)):
                with torch.no_grad():
                    gradient = A.adjoint(A(x) - seen.y) + method.s**2 * method.G(x)
                assert found == pytest.approx(gradient.square().mean().sqrt().item(), rel=1e-3)


def test_what_does_not_descend_has_no_residual(images, files):
    results, _ = run({"completion80": Scripted(stay)}, images, files)
    assert results[["residual_start", "residual"]].isna().all(axis=None)


def test_a_problem_is_kept_as_soon_as_its_images_are_done(descents, images, files):
    class Broken:
        recorded = 5

        def restore(self, seen, record):
            raise KeyboardInterrupt

    methods = {**descents, "sr2_bicubic_n0": Broken()}
    with pytest.raises(KeyboardInterrupt):
        run(methods, images, files, batch=2)
    kept = {stamp.parent.name for stamp in files.kept.glob("*/fingerprint")}
    assert kept == set(descents)


# --- methods from the configuration ---------------------------------------------------------------


def test_gradient_descent_takes_its_settings_from_the_configuration(tiny):
    G = tiny("G")
    method = restorer("gradient_descent", "completion80", G, SETTINGS)
    assert method == GradientDescent(
        InferenceOnly(G), solver=Adam(lr=0.01), s=2.55 / 255, iterations=4, ensemble=True
    )


def test_on_noisy_problems_admm_ends_at_the_noise_level(tiny):
    P = tiny("P")
    noisy = restorer("pnp_admm", "deblur_s1.6", P, ADMM)
    assert isinstance(noisy, PnPADMM) and not noisy.ensemble
    assert noisy.schedule.sigma_last == pytest.approx(0.01)
    clean = restorer("pnp_admm", "completion80", P, ADMM).schedule
    assert clean.sigma_last == pytest.approx(1 / 255)
    assert (clean.iterations, clean.sigma_first) == (5, 1)
    assert clean.sigma_min == pytest.approx(0.001)


@pytest.fixture
def method(manifest, files, tmp_path, tiny):
    """A function that evaluates a tiny network with some arguments changed."""
    save_weights(tmp_path / "G.safetensors", tiny("G").state_dict())
    save_weights(tmp_path / "P.safetensors", tiny("P").state_dict())

    def call(role="G", **changes):
        arguments = {
            "seed": 0,
            "algorithm": "gradient_descent" if role == "G" else "pnp_admm",
            "role": role,
            "weights": tmp_path / f"{role}.safetensors",
            "network": NETWORK,
            "problems": {problem: {} for problem in PROBLEMS},
            "settings": SETTINGS if role == "G" else ADMM,
            "manifest": manifest,
            "files": files,
            "device": CPU,
            "precision": "float32",
            "code": {"evaluate.py": "code"},
        }
        evaluate_method("rerg", **(arguments | changes))
        return pd.read_csv(files.results)

    return call


@pytest.mark.parametrize(("role", "steps"), [("G", [3, 3]), ("P", [5, 3])])
def test_a_network_is_evaluated_on_every_problem_and_image(role, steps, method, images, tiny):
    results = method(role)
    assert results.groupby("problem_id", sort=False)["iterations"].first().tolist() == steps
    assert len(results) == 4
    seen = observe_test_image("deblur_s1.6", images[1].pixels)
    algorithm = "gradient_descent" if role == "G" else "pnp_admm"
    network = tiny(role).requires_grad_(False)
    settings = SETTINGS if role == "G" else ADMM
    x = restorer(algorithm, "deblur_s1.6", network, settings).restore(seen, lambda _: None)
    assert results["psnr_db"].iloc[3] == pytest.approx(psnr(x, seen.x_hat).item(), abs=1e-4)


@pytest.mark.parametrize("role", ["G", "P"])
def test_progress_moves_no_number(role, method, terminal, monkeypatch):
    quiet = method(role)
    monkeypatch.setattr("rglib.progress.INTERVAL", 0.0)
    with terminal() as seen:
        shown = method(role, code={"evaluate.py": "another"})
        assert "rerg: 100%" in seen()
    pd.testing.assert_frame_equal(quiet.drop(columns="seconds"), shown.drop(columns="seconds"))


def with_lr(lr):
    problems = SETTINGS["problems"] | {"completion80": {"lr": lr, "s_255": 2.55, "source": SOURCE}}
    return SETTINGS | {"problems": problems}


def computed(method, monkeypatch, role="G", **changes):
    """The problems that a second evaluation with changes computes."""
    method(role)
    seen = []

    def observe(degradation, pixels):
        seen.extend(name for name in PROBLEMS if EVERY_PROBLEM[name] == degradation)
        return observe_image(degradation, pixels)

    monkeypatch.setattr(evaluation, "observe_image", observe)
    method(role, **changes)
    return set(seen)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"settings": json.loads(json.dumps(SETTINGS))}, set()),
        ({"settings": with_lr(0.02)}, {"completion80"}),
        (
            {"settings": SETTINGS | {"evaluation": SETTINGS["evaluation"] | {"iterations": 5}}},
            set(PROBLEMS),
        ),
        ({"code": {"evaluate.py": "newer"}}, set(PROBLEMS)),
        ({"precision": "bfloat16"}, set(PROBLEMS)),
    ],
)
def test_what_is_computed_again_when_something_changes(changes, expected, method, monkeypatch):
    assert computed(method, monkeypatch, **changes) == expected


def test_other_weights_and_other_images_are_evaluated_again(
    method, files, monkeypatch, tmp_path, tiny, manifest
):
    save_weights(tmp_path / "other.safetensors", tiny("G", seed=1).state_dict())
    other = {"weights": tmp_path / "other.safetensors"}
    assert computed(method, monkeypatch, **other) == set(PROBLEMS)
    fewer = Manifest("toy", "Toy", "folder", manifest.images[:1])
    assert computed(method, monkeypatch, manifest=fewer) == set(PROBLEMS)
    assert len(pd.read_csv(files.results)) == 2
    kept = files.kept / "completion80" / "images"
    assert [path.name for path in kept.iterdir()] == ["one.png"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "completion",
            {"iterations": 5, "sigma_first_255": 200, "sigma_last_255": 1},
            {"completion80"},
        ),
        ("sigma_min_255", 0.5, set(PROBLEMS)),
    ],
)
def test_a_changed_schedule_of_admm_is_computed_again(key, value, expected, method, monkeypatch):
    settings = ADMM | {"admm": ADMM["admm"] | {key: value}}
    assert computed(method, monkeypatch, "P", settings=settings) == expected


def test_weights_of_another_network_are_refused_before_anything_is_computed(
    method, files, tmp_path
):
    with pytest.raises(WeightsError, match="another network"):
        method(weights=tmp_path / "P.safetensors")
    assert not files.kept.exists()


# --- test images that cannot be used --------------------------------------------------------------


def folder_of(folder, sizes):
    folder.mkdir()
    for i, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        write_png(folder / f"bild {i} é.png", pixels)
    return resolve(f"folder:{folder}", mirrors=(), data_dir=folder)


def test_the_smallest_images_that_are_allowed_can_be_restored(tmp_path):
    manifest = folder_of(tmp_path / "set", [(32, 32), (63, 33)])
    images = evaluation.read_test_images(manifest)
    check_sizes(manifest, images, EVERY_PROBLEM)
    for problem in EVERY_PROBLEM:
        for image in images:
            seen = observe_test_image(problem, image.pixels)
            assert ssim(seen.x0, seen.x_hat).isfinite()


@pytest.mark.parametrize(
    ("height", "width", "problem", "left"),
    [
        (10, 40, "completion80", "40x10, and 11x11"),
        (31, 40, "deblur_s1.6", "40x24, and 25x25"),
        (40, 31, "sr2_bicubic_n0", "0x32, and 11x11"),
        (11, 12, "sr3_gaussian_n0.01", "12x9, and 11x11"),
        (1, 1, "sr3_bicubic_n0", "0x0, and 11x11"),
    ],
)
def test_a_tiny_image_is_named_with_the_problem(height, width, problem, left, tmp_path):
    manifest = folder_of(tmp_path / "set", [(48, 48), (height, width)])
    images = evaluation.read_test_images(manifest)
    said = rf"bild 1 é\.png is too small for {problem}: of its {width}x{height} .* leaves {left}"
    with pytest.raises(ImageError, match=said):
        names = ["completion90", problem] if height > 10 else [problem]
        check_sizes(manifest, images, {name: EVERY_PROBLEM[name] for name in names})


def test_a_tiny_image_or_its_problem_is_taken_out_as_the_message_says(tmp_path):
    manifest = folder_of(tmp_path / "set", [(48, 48), (31, 40)])
    kinds = {name: EVERY_PROBLEM[name] for name in PROBLEMS}
    images = evaluation.read_test_images(manifest)
    with pytest.raises(ImageError) as caught:
        check_sizes(manifest, images, kinds)
    said = r"^(.*) is too small for (\S+): .* out of the data set (\S+), or .* out of `(\w+)`$"
    ((image, problem, data_set, key),) = re.findall(said, str(caught.value))
    left = SETTINGS[key].keys() - {problem}
    assert left
    check_sizes(manifest, images, {name: kinds[name] for name in left})
    Path(image).unlink()
    manifest = resolve(data_set, mirrors=(), data_dir=tmp_path)
    images = evaluation.read_test_images(manifest)
    assert len(images) == 1
    check_sizes(manifest, images, kinds)


def test_a_test_set_that_cannot_be_used_stops_before_the_first_restoration(
    method, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "observe_image", None)
    with pytest.raises(ImageError, match=r"bild 1 é.*deblur"):
        method(manifest=folder_of(tmp_path / "tiny", [(40, 40), (24, 24)]))
    truncated = folder_of(tmp_path / "truncated", [(40, 40), (40, 40)])
    path = truncated.images[1].path
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"bild 1 é\.png"):
        method(manifest=truncated)
    assert not files.kept.exists()


def test_images_may_be_called_like_numbers_or_like_nothing(images, files):
    names = ("0001", "null")
    called = [replace(image, name=name) for image, name in zip(images, names, strict=True)]
    for _ in range(2):  # computed, and kept
        run({"completion80": Scripted(stay)}, called, files)
        results = read_results([files.results], methods={"rerg": [5]}, problems=["completion80"])
        assert results["image"].tolist() == list(names)
    assert "completion80,0001,33,41," in files.results.read_text()


def test_a_full_disk_keeps_the_problems_that_are_finished(images, files, full_disk):
    """An image of this size has 4 KB, and a curve of 1000 points more than 20."""
    long = [stay] * 1000
    methods = {"completion80": Scripted(stay), "deblur_s1.6": Scripted(*long)}
    with full_disk(10_000), pytest.raises(OSError, match=r"deblur_s1\.6/curves\.csv"):
        run(methods, images, files)
    again = {"completion80": Scripted(stay), "deblur_s1.6": Scripted(*long)}
    results, _ = run(again, images, files)
    assert [method.asked for method in again.values()] == [0, 2] and len(results) == 4


def test_truth_and_start_of_a_problem_are_written(images, tmp_path):
    write_observation(EVERY_PROBLEM["deblur_s1.6"], images[0], tmp_path)
    seen = observe_test_image("deblur_s1.6", images[0].pixels)
    for name, expected in (("truth", seen.x_hat), ("start", seen.x0)):
        written = to_tensor(read_image(tmp_path / f"one_{name}.png"))
        assert (written - expected.clamp(0, 1)).abs().max() <= 0.5001 / 255
