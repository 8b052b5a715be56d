"""The accelerated solver beside the paper's: what it costs, its tables and its figure."""

import json
import math
import re
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.text import Text
from PIL import Image
from toys import LONG_FOOT, check_layout, toy_provenance

from rglib.core.fixed_point import solver_named
from rglib.core.maps import RegularizedGradient
from rglib.core.operators import Mask
from rglib.core.problems import DataGradient, KernelBlur, TrainingDistribution
from rglib.data.images import ImageError, write_png
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import file_digest
from rglib.plan.ablations import overlaid
from rglib.plan.acceleration import SOLVERS, copies
from rglib.plan.check import ConfigurationError, check
from rglib.plan.names import copy_name
from rglib.plan.variants import expanded
from rglib.records.provenance import configuration_hash
from rglib.report.acceleration import (
    AIM_CALLS,
    acceleration_figure,
    acceleration_markdown,
    acceleration_table,
    adam_steps,
    descriptions,
    of_both_solvers,
    said_of_failures,
    said_of_the_aim,
    summary,
    title,
)
from rglib.report.evaluations import CURVE_COLUMNS, ResultsError, paper_problems, write_csv
from rglib.report.figures import FOOT_SIZE, save
from rglib.restoration.evaluation import check_sizes, read_test_images
from rglib.studies import acceleration as acceleration_training
from rglib.studies.acceleration import CALLS_BEFORE, compare_solvers
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
LABELS = {"pnpreg": "pnpReG", "rerg": "RERG"}
PROVENANCE = of_both_solvers(toy_provenance(), steps={"adam": 1500, "semi_implicit": 150})
SPENT_ON_SLOPE = 2.25  # 9 evaluations, on 48x48 pixels of 96x96


@dataclass
class Counted:
    """G(x) = slope x, and for how many pixels it was asked."""

    slope: float = 1.0
    pixels: int = 0

    def __call__(self, x):
        self.pixels += x.shape[-2] * x.shape[-1]
        return self.slope * x


# --- the copies of the methods --------------------------------------------------------------------


def test_each_method_by_gradient_descent_has_a_copy_for_each_solver():
    config = deepcopy(DEFAULT)
    config["methods"]["rg1"]["evaluation"] = {"ensemble": False}
    made = copies(config)
    assert list(made) == [
        f"{method}-{solver}" for method in ("pnpreg", "rg1", "deqgd", "rerg") for solver in SOLVERS
    ]
    assert made["rg1-adam"]["evaluation"] == {
        "ensemble": False,
        "solver": "adam",
        "iterations": 1501,  # with the starting point
        "tolerance": None,
        "average": False,
        "x0": "released",
        "crop": 96,
    }
    assert made["rerg-semi_implicit"]["evaluation"]["average"]
    assert made["rerg-semi_implicit"]["evaluation"]["x0"] == "interpolated"
    assert made["rerg-semi_implicit"]["stage"] == "rerg"
    assert expanded(config)["methods"].items() >= made.items()


def test_no_configured_name_can_be_that_of_a_copy():
    config = deepcopy(DEFAULT)
    config["methods"]["rerg-adam"] = config["methods"]["rerg"]
    with pytest.raises(ConfigurationError, match="'rerg-adam' is not allowed"):
        check(config, SCHEMA)


def test_the_comparison_does_not_count_for_the_tables():
    other = overlaid(DEFAULT, {"acceleration": {"crop": 64}})
    assert configuration_hash(other) == configuration_hash(DEFAULT)


def test_the_images_of_a_copy_are_the_middles_of_the_test_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    files = (ImageFile("a", tmp_path / "a.png", file_digest(tmp_path / "a.png")),)
    manifest = Manifest("folder:x", "Mine", "folder", files)
    (image,) = read_test_images(manifest, crop=32)
    assert image.name == "a"
    expected = torch.from_numpy(pixels[14:46, 9:41]).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(image.pixels, expected)
    (whole,) = read_test_images(manifest)
    assert whole.pixels.shape == (1, 3, 60, 50)
    of_motion = {"motion": KernelBlur(torch.ones(33, 33), sigma=0.0)}
    check_sizes(manifest, [whole], of_motion)
    with pytest.raises(ImageError, match=r"cropped to its middle \(32 pixels\), is too small for"):
        check_sizes(manifest, [image], of_motion, crop=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 31}, "acceleration.crop: 31 is not allowed; must be at least 32"),
        ({"crops": 64}, "acceleration.crops: unknown key"),
        ({"steps": {"adam": 0}}, "acceleration.steps.adam: 0 is not allowed"),
        ({"training": {"stage": "deqdg"}}, 'training.stage: .* did you mean "deqgd"?'),
    ],
)
def test_mistakes_of_the_configuration_are_named(change, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(overlaid(DEFAULT, {"acceleration": {"crop": None}}), SCHEMA)
    with pytest.raises(ConfigurationError, match=message):
        check(overlaid(DEFAULT, {"acceleration": change}), SCHEMA)


def test_crops_that_a_blur_does_not_fit_are_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    small = {"stages": {"pnpreg": {"budget": {"crop": 16}}}}
    config = overlaid(overlaid(DEFAULT, small), {"acceleration": {"training": {"stage": "pnpreg"}}})
    with pytest.raises(ConfigurationError, match="must be a stage with a crop of at least 32"):
        check(config, SCHEMA)


def test_the_networks_as_they_are_have_the_settings_they_were_trained_for():
    trained, pretrained = (
        overlaid(DEFAULT, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
        for name in ("overnight", "pretrained")
    )
    for section in ("evaluation", "problems", "admm"):
        assert pretrained[section] == trained[section]
    given = pretrained["weights"]
    needed = {method["stage"] for method in DEFAULT["methods"].values()}
    assert needed <= set(given)


# --- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (96, 96), (100, 40), (300, 200)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_evaluation_of_G_is_counted_by_its_pixels(solver, height, width):
    G, x = Counted(), torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    mask = Mask(torch.ones(1, 1, height, width))
    gradient = RegularizedGradient(G, DataGradient(mask, x), 0.1)
    chosen = solver_named(solver, lr=0.01)
    state = chosen.init(gradient, x)
    for steps in range(4):
        calls = CALLS_BEFORE[solver](height, width) + steps
        assert G.pixels == pytest.approx(calls * height * width)
        x, state = chosen.step(gradient, x, state)


def test_the_search_for_the_slope_costs_nine_calls_on_a_small_image_and_adam_has_none():
    calls = {solver: before(48, 30) for solver, before in CALLS_BEFORE.items()}
    assert calls == {"adam": 0, "semi_implicit": 9}
    assert CALLS_BEFORE["semi_implicit"](96, 96) == SPENT_ON_SLOPE


@dataclass(frozen=True)
class Crops:
    """Random images instead of a store."""

    batch: int = 1
    seed: int = 3
    drawn: list = field(default_factory=list)

    def crops(self, step):
        self.drawn.append(step)
        generator = np.random.default_rng(step)
        return generator.integers(0, 256, (self.batch, 3, 32, 32), dtype=np.uint8)


def measured(G, crops, **changes):
    settings = {"batches": 2, "max_iterations": 40} | changes
    shared = {key: DEFAULT[key] for key in ("equilibrium", "training_problems")}
    on = torch.device("cpu")
    return compare_solvers(G, crops, **settings, shared=shared, device=on, note="x_g")


def test_the_calls_in_training_are_those_that_are_made():
    G = Counted()
    table = measured(G, Crops())
    assert table["calls"].sum() * 32 * 32 == G.pixels
    assert ["method", *table.columns] == list(acceleration_training.COLUMNS)


def test_both_solvers_start_from_what_the_stage_would_draw():
    crops = Crops(batch=2)
    table = measured(Counted(), crops)
    assert crops.drawn == [0, 1]
    seen = {}

    def record(x):
        seen["x0"] = x
        return 0 * x

    for step, rows in table.groupby("step"):
        x_hat = torch.from_numpy(crops.crops(step)).float() / 255
        as_drawn = TrainingDistribution.of(DEFAULT["training_problems"])
        objective = Equilibrium(gradient_descent=1.0, distribution=as_drawn)
        losses = objective({"G": record}, Batch(x_hat, step, crops.seed))
        assert (rows["sigma"] == losses.statistics["sigma"]).all()
    assert list(table["solver"]) == [*SOLVERS] * 2


def test_a_convex_prior_converges_in_training_and_a_concave_one_does_not():
    convex = measured(Counted(1.0), Crops(batch=2), max_iterations=500)
    ours = convex[convex["solver"] == "semi_implicit"]
    assert (ours["converged"] == 1).all() and (ours["diverged"] == 0).all()
    concave = measured(Counted(-1e6), Crops(batch=2), max_iterations=200)
    assert (concave["converged"] == 0).all()


# --- the tables -----------------------------------------------------------------------------------


def curve(method, solver, values, problem="completion90"):
    rows = [(copy_name(method, solver), 0, problem, "a", k, v) for k, v in enumerate(values)]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def rising(end, steps, *, start=10.0, pace=0.1):
    """From the start to the end, closer at an exponential pace."""
    return [end - (end - start) * math.exp(-pace * k) for k in range(steps + 1)]


def sizes(curves, height=96, width=96):
    """What there is to know of the images of curves."""
    ends = curves.groupby(["method", "problem_id", "image"], as_index=False).last()
    return ends.assign(height=height, width=width)


def a_table(**values):
    """Of one method on one problem: what the solvers pass through."""
    made = pd.concat([curve("rerg", solver, values[solver]) for solver in SOLVERS])
    return acceleration_table(
        made, sizes(made), calls_before=CALLS_BEFORE, methods=["rerg"], problems=["completion90"]
    )


def test_the_ladder_has_every_call_up_to_the_aim_and_each_tenth_beyond():
    table = a_table(adam=rising(25, 1500), semi_implicit=rising(25, 150))
    assert ",".join(table) == "method,problem_id,solver,calls,psnr_db,psnr_adam1500_db"
    calls = {s: list(rows["calls"]) for s, rows in table.groupby("solver")}
    assert calls["adam"] == [*range(51), *range(60, 1501, 10)]
    assert calls["semi_implicit"] == [SPENT_ON_SLOPE + k for k in range(151)]
    first = table.groupby("solver")["psnr_db"].first()
    assert (first == 10.0).all()  # the starting point
    assert table["psnr_adam1500_db"].nunique() == 1
    assert table["psnr_adam1500_db"].iloc[0] == pytest.approx(rising(25, 1500)[-1])


def test_means_are_over_the_images_and_an_image_without_end_leaves_none():
    two = pd.concat(
        [
            curve("rerg", "adam", [10, 20, math.nan]),
            curve("rerg", "adam", [20, 30, 30]).assign(image="b"),
            curve("rerg", "semi_implicit", [10, 20, 25]),
        ]
    )
    table = acceleration_table(
        two, sizes(two), calls_before=CALLS_BEFORE, methods=["rerg"], problems=["completion90"]
    )
    of_adam = table.loc[table["solver"] == "adam", "psnr_db"]
    np.testing.assert_array_equal(of_adam, [15, 25, math.nan])
    assert table["psnr_adam2_db"].isna().all() and adam_steps(table) == 2


def test_a_curve_that_is_missing_is_named_and_the_rule_that_makes_it():
    """That its option makes snakemake evaluate is typed in tests/test_evaluations.py."""
    missing = "no curve of rerg by semi_implicit on completion90"
    with pytest.raises(ResultsError, match=missing) as caught:
        alone = curve("rerg", "adam", [1, 2])
        acceleration_table(
            alone,
            sizes(alone),
            calls_before=CALLS_BEFORE,
            methods=["rerg"],
            problems=["completion90"],
        )
    (rule,) = re.findall(r"evaluate it again, with --forcerun (\w+)$", str(caught.value))
    rules = (ROOT / "workflow/rules/evaluate.smk").read_text()
    (making,) = re.findall(rf"^rule {rule}:\n(?: .*\n|\n)+", rules, re.M)
    assert "/{{method}}_curves.csv" in making


def compared(**values):
    (row,) = summary(a_table(**values)).to_dict("records")
    return row


def test_the_aim_holds_within_a_twentieth_of_a_decibel_and_above():
    for end, holds in ((24.96, True), (24.94, False), (27.0, True)):
        row = compared(adam=[10, 20, 25], semi_implicit=[10, 20, end])
        assert row["holds"] is holds
        assert row["difference_db"] == pytest.approx(end - 25)


def test_calls_before_the_first_step_are_those_of_the_images_in_the_mean():
    two = pd.concat([curve("rerg", s, [10, 25]).assign(image=i) for s in SOLVERS for i in "ab"])
    of_both = sizes(two).assign(width=lambda rows: [96 if i == "a" else 192 for i in rows["image"]])
    table = acceleration_table(
        two, of_both, calls_before=CALLS_BEFORE, methods=["rerg"], problems=["completion90"]
    )
    calls = table.groupby("solver")["calls"].apply(list)
    assert calls["adam"] == [0, 1]
    assert calls["semi_implicit"] == pytest.approx(
        [(2.25 + 1.125) / 2, 1 + (2.25 + 1.125) / 2], abs=0.01
    )


def test_the_aim_is_judged_after_50_calls_and_not_later():
    late = [10.0] * 48 + [25.0] * 20  # the last in time is 47 steps and 2.25 calls
    row = compared(adam=[10, 25], semi_implicit=late)
    assert not row["holds"] and row["psnr_db"] == 10.0 and row["calls"] == 48 + SPENT_ON_SLOPE
    in_time = late[1:]
    assert compared(adam=[10, 25], semi_implicit=in_time)["holds"]


def test_calls_count_from_where_it_stays():
    there_and_back = [10, 25, 10, 25, 25]
    assert compared(adam=[10, 25], semi_implicit=there_and_back)["calls"] == SPENT_ON_SLOPE + 3
    assert math.isnan(compared(adam=[10, 25], semi_implicit=[10, 25, 10])["calls"])
    assert compared(adam=[10, 9], semi_implicit=[10, 25])["calls"] == SPENT_ON_SLOPE


@pytest.mark.parametrize("end", [math.nan, -30.0])
def test_where_adam_diverges_what_is_finite_is_better(end):
    row = compared(adam=[10, 24.5, end], semi_implicit=[10, 20, 20])
    assert row["holds"] and row["adam_fails"] and not row["semi_implicit_fails"]
    assert (row["adam_best_db"], row["adam_best_calls"]) == (24.5, 1)


def test_a_solver_that_ends_nowhere_misses_the_aim():
    for adam in ([10, 25], [10, math.nan]):
        row = compared(adam=adam, semi_implicit=[10, 20, math.nan])
        assert not row["holds"] and row["semi_implicit_fails"]


ROWS = pd.concat(
    [
        summary(a_table(adam=[10, 25], semi_implicit=[10, 25])),
        summary(a_table(adam=[10, 25], semi_implicit=[10, 9])),
        summary(a_table(adam=[10, 24.5, math.nan], semi_implicit=[10, 20, 20])),
    ]
)


def test_the_sentences_count_and_say_what_adam_does_where_it_diverges():
    assert "**2 of 3** problems x methods" in said_of_the_aim(ROWS, steps=1500)
    said = said_of_failures(ROWS, labels=LABELS, steps=1500)
    assert "Adam is under its starting point, or not finite, on 1 of them" in said
    assert "after at most 50 calls on 1, and on 1 where Adam is not: " in said
    assert "Adam is not: RERG on completion, 90 % missing." in said
    assert (
        "- Adam, RERG on completion, 90 % missing: starts at 10.00, is at its best, 24.50, after "
        "1 calls, and ends at not finite." in said
    )
    assert "- Adam" not in said_of_failures(ROWS[:2], labels=LABELS, steps=1500)


TRAINING = pd.DataFrame(
    [
        ("rerg", "adam", 0, 0.1, 1, 0.0, 0.0, 500.0),
        ("rerg", "adam", 1, 0.1, 3, 1.0, 0.0, 100.0),
        ("rerg", "semi_implicit", 0, 0.1, 4, 1.0, 0.0, 31.0),
    ],
    columns=list(acceleration_training.COLUMNS),
)


def markdown(table, crop):
    return acceleration_markdown(
        table,
        TRAINING,
        labels=LABELS,
        crop=crop,
        trained_on="embedded_train",
        provenance=PROVENANCE,
    )


def test_the_summary_has_the_numbers_in_training_weighted_by_images():
    text = markdown(a_table(adam=[10, 25], semi_implicit=[10, 24]), 128)
    rows = [[c.strip() for c in line.split("|")] for line in text.splitlines() if "|" in line]
    assert ["", "RERG", "adam", "75.0%", "0.0%", "200.0", ""] in rows
    assert ["", "RERG", "semi_implicit", "100.0%", "0.0%", "31.0", ""] in rows
    assert "**\N{MINUS SIGN}1.000**" in text and "4 crops of embedded_train" in text


@pytest.mark.parametrize(("crop", "named"), [(128, "crops of 128x128 pixels"), (None, "whole")])
def test_the_crop_is_named_everywhere(crop, named, tmp_path):
    table = a_table(adam=[10, 20, 25], semi_implicit=[10, 24, 25])
    assert named in markdown(table, crop)
    figure = acceleration_figure(table, labels=LABELS, crop=crop, provenance=PROVENANCE)
    assert named in figure.texts[-1].get_text()
    save(figure, tmp_path / "f.png", title=title(crop), provenance=PROVENANCE)
    with Image.open(tmp_path / "f.png") as picture:
        assert named in picture.text["Title"]
    write_csv(
        table,
        tmp_path / "t.csv",
        title=title(crop),
        provenance=PROVENANCE,
        descriptions=descriptions(adam_steps(table)),
    )
    for name in ("f.png", "t.csv"):
        record = json.loads((tmp_path / f"{name}-metadata.json").read_text())
        assert named in record["dc:title"]
        assert record["dc:provenance"]["solver"] == "adam beside semi_implicit"


# --- the figure -----------------------------------------------------------------------------------


def full_table(problems):
    made = [
        curve(method, solver, rising(25 + n, 150), problem)
        for n, method in enumerate(LABELS)
        for solver in SOLVERS
        for problem in problems
    ]
    curves = pd.concat(made)
    return acceleration_table(
        curves, sizes(curves), calls_before=CALLS_BEFORE, methods=list(LABELS), problems=problems
    )


@pytest.mark.parametrize("own", [0, 1])
def test_a_panel_for_each_problem_a_colour_for_each_method_and_dashes_for_adam(own):
    problems = [*paper_problems(), *["motion"] * own]
    table = full_table(problems)
    figure = acceleration_figure(table, labels=LABELS, crop=64, provenance=PROVENANCE)
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == 12 + own
    drawn = [line for line in panels[0].lines if len(line.get_xdata()) > 2]
    assert len({line.get_color() for line in drawn}) == len(LABELS)
    assert [line.is_dashed() for line in drawn] == [True, False] * len(LABELS)
    assert {axes.get_xscale() for axes in panels} == {"log"}
    assert panels[-1].get_title("left") == ("motion" if own else "SR ×3 gaussian,\nσ = 0.01")


def test_the_figure_is_as_wide_as_the_text_and_its_letters_stay_within():
    table = full_table(paper_problems())
    figure = acceleration_figure(table, labels=LABELS, crop=64, provenance=PROVENANCE)
    foot = figure.texts[0]
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text is not foot}
    assert sizes == {8, 9} and foot.get_fontsize() == FOOT_SIZE
    assert figure.get_size_inches()[0] * 2.54 == pytest.approx(15.8)
    check_layout(figure, foot_lines=1)
    longer = acceleration_figure(table, labels=LABELS, crop=64, provenance=LONG_FOOT)
    check_layout(longer, foot_lines=2)
    assert longer.legends[0].get_texts()[-1].get_text() == f"{AIM_CALLS} calls"  # the grey line


def test_a_curve_that_falls_out_leaves_its_panel_as_it_is():
    table = a_table(adam=[10, 20, -300], semi_implicit=[10, 20, math.nan])
    figure = acceleration_figure(table, labels=LABELS, crop=64, provenance=PROVENANCE)
    assert figure.axes[0].get_ylim()[0] == 7.0
    with pytest.raises(ResultsError, match="8 methods; the figure can tell 7 apart"):
        acceleration_figure(
            table, labels=dict.fromkeys("abcdefgh", "x"), crop=64, provenance=PROVENANCE
        )


def test_the_foot_names_a_stand_in():
    table = a_table(adam=[10, 20], semi_implicit=[10, 20])
    provenance = replace(PROVENANCE, stand_in_for="Set5")
    figure = acceleration_figure(table, labels=LABELS, crop=64, provenance=provenance)
    assert "STAND-IN" in figure.texts[0].get_text()
