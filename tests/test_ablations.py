"""What the paper leaves open: its table, its switches, and the ablations made of them."""

import math
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from toys import toy_provenance

from rglib.core.fixed_point import StoppingRule
from rglib.core.interpolation import interpolated
from rglib.core.problems import (
    Completion,
    SeededStep,
    SuperResolution,
    TrainingDistribution,
    observe,
)
from rglib.plan.ablations import active, including_ablations, left_out, overlaid, references
from rglib.plan.check import ConfigurationError, check
from rglib.records.provenance import configuration_hash
from rglib.report.ablations import ablation_table, ablations_markdown, descriptions
from rglib.report.evaluations import RESULT_COLUMNS, summarise, write_csv
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch
from rglib.training.stage import StageSettings

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"init": "scratch"}
PROBLEMS = ["completion80", "deblur_s1.6"]


def with_ablations(ablations, **changes):
    return deepcopy(DEFAULT) | {"ablations": ablations} | changes


def an_ablation(**changes):
    return {"label": "another", "method": "rerg"} | changes


# --- stages and methods of ablations --------------------------------------------------------------


def test_an_ablation_of_training_is_a_changed_stage_and_a_method_that_uses_it():
    change = {"equilibrium": {"link_variance": "literal"}, "optimiser": {"lr": 1.0e-3}}
    made = including_ablations(with_ablations({"mine": an_ablation(stage=change)}))
    stage, rerg = made["stages"]["mine"], DEFAULT["stages"]["rerg"]
    assert stage["equilibrium"] == {"link_variance": "literal"}
    assert stage["optimiser"] == rerg["optimiser"] | {"lr": 1.0e-3}
    assert {key: stage[key] for key in ("objective", "options", "init", "budget")} == {
        key: rerg[key] for key in ("objective", "options", "init", "budget")
    }
    assert made["methods"]["mine"] == DEFAULT["methods"]["rerg"] | {
        "label": "another",
        "stage": "mine",
    }


def test_an_ablation_of_the_evaluation_reuses_the_stage():
    made = including_ablations(
        with_ablations({"mine": an_ablation(evaluation={"ensemble": False})})
    )
    assert made["stages"] == DEFAULT["stages"]
    assert made["methods"]["mine"]["stage"] == "rerg"
    assert made["methods"]["mine"]["evaluation"] == {"ensemble": False}


def test_expanding_leaves_the_configuration_as_it_is():
    before = deepcopy(DEFAULT)
    made = including_ablations(DEFAULT)
    assert DEFAULT == before
    assert list(made["methods"]) == [*DEFAULT["methods"], *DEFAULT["ablations"]]
    for section in ("stages", "methods"):
        assert made[section].items() >= DEFAULT[section].items()


def test_null_and_methods_that_are_not_configured_take_an_ablation_away():
    config = with_ablations(
        {"gone": None, "mine": an_ablation(stage={}), "lost": an_ablation(method="rg2", stage={})}
    )
    assert list(active(config)) == ["mine"]
    assert left_out(config) == ["lost"]
    assert references(active(config)) == ["rerg"]


def test_overlays_merge_mappings_at_every_depth_and_replace_the_rest():
    base = {"a": {"b": {"c": 1, "d": [1, 2]}}, "e": 2}
    overlay = {"a": {"b": {"d": [3]}}, "e": {"f": 4}, "g": None}
    assert overlaid(base, overlay) == {"a": {"b": {"c": 1, "d": [3]}}, "e": {"f": 4}, "g": None}
    assert base == {"a": {"b": {"c": 1, "d": [1, 2]}}, "e": 2}


def test_weights_that_an_ablation_alone_needs_are_told_as_weights(monkeypatch):
    """RG1 is given, and of pnpReG P alone: only the ablation's training starts from its G."""
    monkeypatch.chdir(Path(__file__).parents[1])
    ablation = an_ablation(stage={"seed": 1}) | {"method": "rg1"}
    config = with_ablations({"mine": ablation}, init="weights")
    config["methods"] = {name: config["methods"][name] for name in ("gauss", "rg1")}
    given = {"denoiser": "P", "mtdeq": "P", "rg1": "G", "deqgd": "G", "rerg": "G"}
    config["weights"] = {
        "start": config["weights"]["start"],
        "pnpreg": {"P": {"file": "weights/denoiser_P.safetensors"}},
        **{
            stage: {role: {"file": f"weights/{stage}_{role}.safetensors"}}
            for stage, role in given.items()
        },
    }
    with pytest.raises(ConfigurationError) as caught:
        check(config, SCHEMA)
    needed = "weights.pnpreg.G: is missing; ablations.mine.stage.init.G needs it, and a given stage"
    assert str(caught.value).startswith(needed)


def test_the_ablations_do_not_count_for_the_tables():
    assert configuration_hash(DEFAULT) == configuration_hash(with_ablations({}))


def test_an_ablation_is_logged_as_its_reference():
    parts = {
        "entry": {},
        "shared": {},
        "network": {},
        "seed": 1,
        "precision": "float32",
        "code": [],
    }
    settings = StageSettings.of(SimpleNamespace(stage="rerg_seed", **parts), DEFAULT)
    assert settings.log == DEFAULT["stages"]["rerg"]["log"]


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = [
    (an_ablation(), "mine: {"),
    (an_ablation(stage={"steps": 3}), "mine.stage.steps: unknown key"),
    (an_ablation(stage={"seed": -1}), "mine.stage.seed: -1 is not allowed; must be at least 0"),
    (an_ablation(stage={}, reading=14), "mine.reading: 14 is not allowed; must be at most 13"),
    (an_ablation(stage={}, method=3), "mine.method: 3 is not allowed"),
    (
        an_ablation(stage={"equilibrium": {"link_variance": "eta"}}),
        "mine.stage.equilibrium.link_variance: 'eta' is not allowed; must be one of theorem",
    ),
    (
        an_ablation(stage={"training_problems": {"kernel": ["gaussian"]}}),
        'mine.stage.training_problems.kernel: unknown key; did you mean "kernels"?',
    ),
    (an_ablation(stage={"options": {"link": 0}}), "mine.stage.options.link: 0 is not allowed"),
    (
        an_ablation(stage={"optimiser": {"schedule": {"step": {"every": 1, "gamma": 1}}}}),
        "mine.stage.optimiser.schedule: ",
    ),
    (
        an_ablation(method="gauss", stage={"equilibrium": {"guard": 2.0}}),
        "mine.stage.equilibrium: is not allowed; the objective denoising does not read it",
    ),
    (
        an_ablation(stage={"options": {"link": None, "gradient_descent": None}}),
        "mine.stage: 'mine' is not allowed; must be a stage that learns G",
    ),
    (an_ablation(evaluation={"ensembel": False}), "mine.evaluation.ensembel: unknown key"),
]


@pytest.mark.parametrize("ablation, line", MISTAKES, ids=[line for _, line in MISTAKES])
def test_a_mistake_is_told_where_it_was_written(ablation, line):
    with pytest.raises(ConfigurationError) as caught:
        check(with_ablations({"mine": ablation}), SCHEMA)
    assert any(said.startswith(f"ablations.{line}") for said in str(caught.value).split("\n"))


@pytest.mark.parametrize("name", ["rerg", "residual", "gauss"])
def test_an_ablation_is_not_named_as_a_stage_or_method(name):
    config = with_ablations({name: an_ablation(stage={"seed": 1})})
    with pytest.raises(ConfigurationError, match="a name that no stage and no method has"):
        check(config, SCHEMA)


def test_a_stage_and_a_method_may_have_their_own_settings():
    config = deepcopy(DEFAULT)
    config["stages"]["rg1"] |= {"equilibrium": {"max_iterations": 3}, "seed": 7}
    config["methods"]["rg1"]["evaluation"] = {"ensemble": False}
    check(config, SCHEMA)
    config["stages"]["denoiser"]["training_problems"] = {"factors": [2]}
    with pytest.raises(ConfigurationError, match="objective denoising does not read it"):
        check(config, SCHEMA)


# --- the table of the readings --------------------------------------------------------------------


def rows_of_readings():
    text = (ROOT / "docs/readings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", text, re.M)
    return {int(number): re.split(r"(?<!\\)\|", row) for number, row in rows}


def entry_at(path):
    """The entry of the configuration, or of RERG's stage, at a dotted path."""
    for value in (DEFAULT, DEFAULT["stages"]["rerg"]):
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def test_every_reading_has_a_row_and_every_cell_its_text():
    rows = rows_of_readings()
    assert list(rows) == list(range(1, 14))
    assert all(len(row) == 6 and all(cell.strip() for cell in row) for row in rows.values())


def test_the_keys_of_the_readings_are_those_of_the_configuration():
    for number, row in rows_of_readings().items():
        key = row[3].strip()
        path = re.match(r"`([\w.]+)", key)
        assert path or key == "none"
        if path and number != 11:  # the schedule of the embedded default has no steps
            assert entry_at(path.group(1)) is not None, key


def test_every_ablation_is_of_a_reading_that_has_a_key():
    rows = rows_of_readings()
    for name, ablation in DEFAULT["ablations"].items():
        if "reading" in ablation:
            assert rows[ablation["reading"]][3].strip() != "none"
        else:
            assert name in ("rerg_seed", "rerg_implicit")


# --- the switches ---------------------------------------------------------------------------------


def draws(distribution, count=400):
    return [distribution.draw(SeededStep(0, step)) for step in range(count)]


def test_the_kernels_of_super_resolution():
    def kernels(*names):
        drawn = draws(TrainingDistribution(kernels=names))
        return {(d.kernel, d.factor) for d in drawn if isinstance(d, SuperResolution)}

    assert kernels("bicubic") == {("bicubic", factor) for factor in (1, 2, 4)}
    assert kernels("bicubic", "gaussian") == {
        (kernel, factor) for kernel in ("bicubic", "gaussian") for factor in (1, 2, 4)
    }


@pytest.mark.parametrize("shared", [True, False])
def test_masks_of_the_channels(shared):
    drawn = draws(TrainingDistribution(shared_masks=shared), 20)
    completion = next(d for d in drawn if isinstance(d, Completion) and 0.2 < d.keep < 0.8)
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = observe(completion, x_hat, SeededStep(0, 0))
    mask = seen.problem.A.mask.expand_as(x_hat)
    assert torch.equal(mask[:, 0], mask[:, 1]) == shared
    assert seen.y.shape == seen.x0.shape == x_hat.shape
    assert abs(mask.mean().item() - completion.keep) < 0.05
    known = mask.bool()
    assert (seen.x0[~known] == 0.5).all() and torch.equal(seen.x0[known], seen.y[known])


@pytest.mark.parametrize("x0", ["test", "interpolated", "adjoint"])
def test_where_the_iterations_start(x0):
    starts = []

    def P(z, sigma):
        starts.append(z)
        return z

    x_hat = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    objective = Equilibrium(forward_backward=1.0, stop=StoppingRule(max_iterations=1), x0=x0)
    step = next(k for k, d in enumerate(draws(objective.distribution)) if isinstance(d, Completion))
    objective({"P": P}, Batch(x_hat, step, 0))
    randomness = SeededStep(0, step)
    seen = observe(objective.distribution.draw(randomness), x_hat, randomness)
    A, y = seen.problem.A, seen.y
    start = {
        "test": seen.x0,
        "interpolated": interpolated(y, A.mask, otherwise=0.5),
        "adjoint": A.adjoint(y),
    }[x0]
    expected = start - objective.eta_fb * A.adjoint(A(start) - y)
    torch.testing.assert_close(starts[0], expected)


def test_the_fixed_point_of_a_contraction_does_not_depend_on_the_start():
    networks = {"P": lambda z, sigma: 0.5 * z}
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stop = StoppingRule(max_iterations=100, tolerance=0)
    objective = Equilibrium(forward_backward=1.0, stop=stop)
    totals = [
        replace(objective, x0=x0)(networks, Batch(x_hat, 1, 0)).total for x0 in ("test", "adjoint")
    ]
    torch.testing.assert_close(*totals)


# --- the table of the ablations -------------------------------------------------------------------

ABLATIONS = {
    "louder": an_ablation(reading=1, stage={"seed": 2}),
    "plain": an_ablation(reading=13, method="rg1", evaluation={"ensemble": False}),
    "lost": an_ablation(stage={"seed": 3}),
}
PROVENANCE = toy_provenance()


def evaluations(psnr, *, diverged=()):
    """Two images, one over and one under the mean PSNR (dB) of each method and problem."""
    rows = []
    for method, means in psnr.items():
        for problem, mean in zip(PROBLEMS, means, strict=True):
            outcome = "diverged" if (method, problem) in diverged else "finished"
            for image, sign in (("one", 1), ("two", -1)):
                values = (20.0, 0.5, mean + sign, 0.9, mean + 2, 1, 2, outcome, 0.1, 1e-3, 1.0)
                rows.append((method, 0, problem, image, 8, 8, *values))
    return pd.DataFrame(rows, columns=RESULT_COLUMNS)


@pytest.fixture(scope="module")
def table():
    psnr = {
        "rerg": (30.0, 28.0),
        "rg1": (31.0, 27.0),
        "louder": (30.5, 27.0),
        "plain": (31.0, 27.004),
        "lost": (30.0, 28.0),
    }
    results = evaluations(psnr, diverged=[("lost", "completion80")])
    return ablation_table(summarise(results), ablations=ABLATIONS, problems=PROBLEMS)


def test_each_method_stands_above_its_ablations(table):
    assert list(table) == list(descriptions(PROBLEMS))
    assert list(table["ablation"]) == ["rerg", "louder", "lost", "rg1", "plain"]
    assert list(table["method"]) == ["rerg", "rerg", "rerg", "rg1", "rg1"]
    assert [None if pd.isna(n) else n for n in table["reading"]] == [None, 1, None, None, 13]


def test_changes_are_against_the_unchanged_method(table):
    rows = table.set_index("ablation")
    changes = ["psnr_change_db", "completion80_change_db", "deblur_s1.6_change_db"]
    assert rows.loc["rerg", "psnr_db"] == 29.0 and rows.loc["rerg", changes].isna().all()
    assert list(rows.loc["louder", ["psnr_db", *changes]]) == [28.75, -0.25, 0.5, -1.0]
    assert rows.loc["plain", "deblur_s1.6_change_db"] == pytest.approx(0.004)
    assert rows.loc["louder", "change"] == '{"stage": {"seed": 2}}'


def test_a_restoration_that_diverged_leaves_no_mean(table):
    lost = table.set_index("ablation").loc["lost"]
    assert math.isnan(lost["psnr_db"]) and math.isnan(lost["psnr_change_db"])
    assert math.isnan(lost["completion80_change_db"]) and lost["deblur_s1.6_change_db"] == 0


def test_the_readable_table(table):
    labels = {"rerg": "RERG", "rg1": "RG1"}
    text = ablations_markdown(table, labels=labels, provenance=PROVENANCE)
    assert "| completion, 80 % missing |" in " ".join(text.split())
    lines = {cells[1]: cells[2:] for cells in map(cells_of, text.split("\n")) if len(cells) > 2}
    assert lines["**RERG**"] == ["29.00", "0.9000", "", "", ""]
    assert lines["RG1, another"] == ["29.00", "0.9000", "+0.00", "+0.00", "+0.00"]
    assert ["28.75", "0.9000", "−0.25", "+0.50", "−1.00"] in map(
        lambda line: cells_of(line)[2:], text.split("\n")
    )
    assert "diverged" in text and "STAND-IN" in text and "Run r, seed 0" in text


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_column_is_described(table, tmp_path):
    write_csv(
        table,
        tmp_path / "ablations.csv",
        title="Ablations",
        provenance=PROVENANCE,
        descriptions=descriptions(PROBLEMS),
    )
    back = pd.read_csv(tmp_path / "ablations.csv")
    assert list(back) == list(table) and (tmp_path / "ablations.csv-metadata.json").exists()
