"""A parcel is packed, runs where nothing but it is, and comes home: all parts, on the CPU."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
import yaml

from rglib.core.networks import load_trainable
from rglib.gpu import parcel, quarter
from rglib.gpu.parcel import PRESENT, assignment_of, configuration, pack
from rglib.gpu.travel import States, receive
from rglib.plan.ablations import overlaid
from rglib.training.stage import StageSettings
from rglib.training.trainer import Cosine

ROOT = Path(__file__).parent.parent
LIMIT = 900  # seconds
STAGES = ["denoiser", "mtdeq", "score", "pnpreg", "rg1", "deqgd", "rerg"]
QUARTER = [Path("config/overnight.yaml"), Path("config/gpu_quarter.yaml")]
UPDATES = 10
# What methods restore with; starts that are starts alone, and P beside a G, are left behind.
HOME = dict(zip(STAGES, ["P", "P", "", "G", "G", "G", "G"], strict=True))
NAMES = {"PIL": "pillow", "skimage": "scikit-image"}  # of distributions, where they differ


def in_updates(steps):
    return {
        "budget": {"steps": steps, "minutes": None, "batch": 2, "crop": 32},
        "optimiser": {"schedule": {"cosine": {"warmup": 2}}},
        "log": {"every": 2},
    }


TINY = {
    "device": "cpu",
    "data": {"train": ["embedded_train"], "validation": ["embedded_validation"]},
    "network": {"widths": [16, 16, 16, 16], "blocks": 1},
    "equilibrium": {"keep": {"batches": 3, "visits": 2, "first_steps": 4, "steps": 1}},
    "stages": {stage: in_updates(UPDATES) for stage in STAGES},
    "evaluation": {"iterations": 9},
}


def tiny_config(**changes):
    config = overlaid(configuration(QUARTER), TINY)
    return overlaid(config, changes)


@pytest.fixture
def project(monkeypatch):
    """The folder that parcels are packed in, for small validations."""
    monkeypatch.chdir(ROOT)
    few = {"images": 2, "crop": 96, "denoising_crop": 96}
    monkeypatch.setattr(parcel, "VALIDATION", few)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment with the packages that a bare machine has, and no others."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    site = folder / f"lib/python3.{sys.version_info.minor}/site-packages"
    waiting, found = [NAMES.get(name, name) for name in PRESENT], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # of another system
            continue
        for top in {Path(file).parts[0] for file in distribution.files if ".." not in str(file)}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
        needed = [need for need in distribution.requires or () if "extra ==" not in need]
        waiting += [re.match(r"[\w.-]+", need)[0].lower() for need in needed]
    return folder / "bin" / "python"


def run(python, folder, out, *, minutes):
    """The command of a quarter, with nothing of the project but the parcel."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RGLIB_MIRRORS")}
    command = [python, "-m", "rglib.gpu.quarter", "--out", out, "--minutes", str(minutes)]
    return subprocess.run(command, cwd=folder, env=kept, text=True, capture_output=True)


@pytest.mark.slow
def test_a_bare_machine_has_none_of_the_projects_other_packages(bare):
    for module in ("snakemake", "jsonschema", "yaml", "rglib"):
        done = subprocess.run([bare, "-c", f"import {module}"], capture_output=True, cwd="/")
        assert done.returncode != 0, module


@pytest.mark.slow
def test_a_parcel_alone_trains_ten_updates_of_each_stage_and_brings_them_home(
    project, bare, tmp_path
):
    folder, out = tmp_path / "parcel", tmp_path / "out"
    config = tiny_config()
    pack(folder, config)
    done = run(bare, folder, out, minutes=12)
    assert done.returncode == 0, done.stdout + done.stderr
    states, records = States(tmp_path / "states"), tmp_path / "records"
    assert sorted(receive(out, states, records)) == sorted(STAGES)
    for stage in STAGES:
        card = states.card(stage)
        assert card["finished"] and card["steps"] == UPDATES
        assert sum(one["steps"] for one in card["quarters"]) == UPDATES
        assert "".join(card["roles"]) == HOME[stage]
        for role in card["roles"]:
            load_trainable(role, states.weights(stage, role), network=config["network"])
    ended = json.loads((records / "parts.json").read_text())
    assert set(ended.values()) == {"done"}, ended
    agreed = json.loads((records / "agree.json").read_text())["rows"]
    float32 = [row["difference"] for row in agreed if row["precision"] == "float32"]
    assert float32 and max(float32) == 0  # a CPU agrees with itself
    assert any(row["difference"] > 0 for row in agreed if row["precision"] == "bfloat16")
    reached = json.loads((records / "validation.json").read_text())
    assert list(reached) == STAGES[::-1]
    assert set(reached["denoiser"]["P"]) == {"psnr_15_db", "psnr_25_db", "psnr_50_db"}
    assert len(reached["rerg"]["G"]) == 13
    files = list(out.iterdir())
    assert len(files) <= 8 and max(file.stat().st_size for file in files) <= 16 * 2**20


@pytest.mark.slow
def test_what_one_quarter_begins_the_next_one_takes_up(project, bare, tmp_path):
    """The first has less time than the denoiser's budget, the second, on another machine, more."""
    budget = {"steps": None, "minutes": 0.5, "batch": 2, "crop": 32}
    config = tiny_config(stages={"denoiser": {"budget": budget}})
    config["methods"] = {"gauss": config["methods"]["gauss"]}
    states = States(tmp_path / "states")
    for i, minutes in enumerate((1.4, 3)):  # of which the validation may take one
        folder, out = tmp_path / f"parcel{i}", tmp_path / f"out{i}"
        pack(folder, config, states=states.folder if i else None)
        (folder / "records").mkdir(exist_ok=True)
        done_before = {"agree": "done", "measure": "done"}
        (folder / "records" / "parts.json").write_text(json.dumps(done_before))
        done = run(bare, folder, out, minutes=minutes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert receive(out, states, states.folder / "records") == ["denoiser"]
        card = states.card("denoiser")
        assert card["finished"] == bool(i), card
    first, second = card["quarters"]
    assert first["steps"] > 0 and second["steps"] > 0
    assert first["steps"] + second["steps"] == card["steps"]
    assert card["minutes_trained"] == pytest.approx(0.5, abs=0.1)
    rows = states.history("denoiser")
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] > first["steps"]
    rates = [row["lr"] for row in rows]
    assert rates[-1] < 0.1 * max(rates)  # the cosine has come to its end, over both


# --- parts of it ----------------------------------------------------------------------------------


def test_the_stages_are_the_workflows_in_their_order(project):
    config = configuration(QUARTER)
    assignment = assignment_of(config)
    assert [settings.name for settings in assignment.stages] == STAGES
    assert assignment.starts["rerg"] == {"P": ("mtdeq", "P"), "G": ("pnpreg", "G")}
    assert assignment.starts["score"] == {"G": ("denoiser", "P")}
    rerg = assignment.stages[-1]
    assert isinstance(rerg, StageSettings)
    assert rerg.shared["equilibrium"]["keep"]["batches"] == 16
    assert rerg.entry["budget"]["minutes"] == 0.6 and rerg.precision == "bfloat16"
    for settings in assignment.stages:
        recipe = quarter.factory.recipe(
            {**settings.entry, "log": settings.log}, settings.shared, seed=settings.seed
        )
        assert isinstance(recipe.schedule, Cosine) and recipe.minutes


def test_networks_go_on_as_long_as_a_training_needs_them(project, tmp_path):
    assignment, states = assignment_of(tiny_config()), States(tmp_path)

    def is_there(stage, roles, finished):
        weights = {role: {} for role in roles}
        states.write(stage, weights, card={"finished": finished}, history=[{"step": 0}])

    def needed(function):
        begun = [stage for stage in STAGES if states.card(stage)]
        return {stage: "".join(function(assignment, states, stage)) for stage in begun}

    is_there("denoiser", "P", False)
    assert needed(quarter.needed_there) == {"denoiser": "P"}
    is_there("denoiser", "P", True)  # mtdeq and others start from it
    assert needed(quarter.needed_there) == {"denoiser": "P"}
    for stage, roles in ("mtdeq", "P"), ("score", "G"), ("pnpreg", "PG"):
        is_there(stage, roles, True)
    there = {"denoiser": "", "mtdeq": "P", "score": "", "pnpreg": "G"}
    assert needed(quarter.needed_there) == there
    assert needed(quarter.needed_at_home) == there | {"denoiser": "P"}
    is_there("rg1", "PG", False)
    assert needed(quarter.needed_at_home)["rg1"] == "PG"


def test_all_stages_of_the_configuration_are_one_quarter(project):
    config = yaml.safe_load(Path("config/gpu_quarter.yaml").read_text())
    minutes = {name: entry["budget"]["minutes"] for name, entry in config["stages"].items()}
    assert list(minutes) == STAGES
    most = quarter.parser().get_default("minutes")
    assert 0.8 * most < sum(minutes.values()) < most - 1  # for the start and the validation


def test_differences_are_relative_and_a_nan_does_not_agree():
    one = quarter.Outcome(2.0, torch.tensor([3.0, 4.0]), torch.empty(0))
    other = quarter.Outcome(2.2, torch.tensor([3.0, 4.5]), torch.empty(0))
    differences = one.differences(other)
    assert differences == pytest.approx({"loss": 0.1, "gradient": 0.1, "iterate": 0.0})
    assert not quarter._row("x", "float32", float("nan"), 1.0)["agrees"]
    assert quarter._row("x", "float32", 1.0, 1.0)["agrees"]


@pytest.mark.parametrize(("gains", "pays"), [([1.2, 1.1], True), ([1.2, 1.0], False), ([], False)])
def test_compiling_pays_where_it_does_for_every_stage_measured(gains, pays, tmp_path):
    head = "quantity,value\nupdate,0.02\n"
    rows = "".join(f'"update / compiled update, seconds",{gain}\n' for gain in gains)
    (tmp_path / "benchmarks.csv").write_text(head + rows)
    assert quarter.compiling_pays(tmp_path / "benchmarks.csv") is pays
