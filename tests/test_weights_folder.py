import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_workflow import Project

from rglib.plan.ablations import overlaid
from rglib.restoration import weights_folder as models
from rglib.restoration.weights_folder import Models, ModelsError, shipped, write_settings

ROOT = Path(__file__).parent.parent
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def configurations():
    """The default, alone and under each file of config/, by the name of its run."""
    overlays = [yaml.safe_load(path.read_text()) for path in (ROOT / "config").glob("*.yaml")]
    stacks = [DEFAULT, *(overlaid(DEFAULT, overlay) for overlay in overlays)]
    return {config["run"]: config for config in stacks}


def as_run(folder, target):
    """A copy of a folder like weights/ in the layout of a run."""
    target.mkdir()
    shutil.copy(folder / "settings.json", target)
    for path in folder.glob("*.safetensors"):
        stage, role = path.stem.rsplit("_", 1)
        (target / stage).mkdir(exist_ok=True)
        shutil.copy(path, target / stage / f"{role}.safetensors")
        shutil.copy(folder / f"{stage}.card.json", target / stage / "card.json")
    return target


def test_the_shipped_settings_are_those_of_the_configuration_that_made_them():
    settings = Models.open().settings
    assert len(configurations()) > 3
    config = configurations()[settings["run"]]
    assert settings == {key: config[key] for key in settings}, "run `snakemake publish_settings`"


def test_shipped_networks_and_cards_belong_together():
    found = Models.open()
    assert {"gauss", "mtdeq", "pnpreg"} <= set(found.available())
    for name in found.available():
        assert found.weights(name).is_file()
        assert found.card(name).stage == found.method(name)["stage"]


def test_the_readme_of_the_networks_is_a_model_card_that_agrees_with_them():
    front, text = (ROOT / "weights/README.md").read_text(encoding="utf-8").split("\n---\n", 1)
    said = yaml.safe_load(front.removeprefix("---\n"))
    assert said["library_name"] == "rglib" and said["license"] == "mit"
    rows = re.findall(r"^\| `(\w+)` \| ([PG]) \| .* \| (\d+)(?:,.*)? \|$", text, re.M)
    found = Models.open()
    stages = {found.method(name)["stage"]: name for name in found.available()}
    assert {stage for stage, _, _ in rows} == stages.keys()
    for stage, role, seconds in rows:
        assert found.weights(stages[stage]).name == f"{stage}_{role}.safetensors"
        assert abs(60 * found.card(stages[stage]).minutes_trained - int(seconds)) < 1
    assert {path.stem for path in found.folder.glob("*.safetensors")} == {
        f"{stage}_{role}" for stage, role, _ in rows
    }
    assert f"{found.card('rerg').images} photographs" in text


def test_the_results_of_the_model_card_are_the_published_ones():
    front = (ROOT / "weights/README.md").read_text(encoding="utf-8").split("\n---\n", 1)[0]
    published = ROOT / "results/published"
    results = pd.read_csv(published / "pretrained/results.csv")
    means = results.groupby("method")[["psnr_db", "ssim"]].mean()
    levels = re.findall(r"\| (\d+/255) \| ([\d.]+) \|", (published / "denoising.md").read_text())
    ids = {entry["label"]: name for name, entry in DEFAULT["methods"].items()}
    told = yaml.safe_load(front.removeprefix("---\n"))["model-index"]
    assert [ids[entry["name"]] for entry in told] == list(DEFAULT["methods"])
    for entry in told:
        of_set5, *of_cbsd68 = ([m["value"] for m in r["metrics"]] for r in entry["results"])
        mean = means.loc[ids[entry["name"]]]
        assert of_set5 == [round(mean.psnr_db, 2), round(mean.ssim, 3)]
        denoises = ids[entry["name"]] == "gauss"
        assert of_cbsd68 == ([[float(value) for _, value in levels]] if denoises else [])


def test_settings_are_sections_of_the_configuration_as_they_are(tmp_path):
    write_settings(DEFAULT, tmp_path / "settings.json")
    for section, value in Models.open(tmp_path).settings.items():
        assert value == DEFAULT[section]


def test_both_layouts_are_read(tiny_models, tmp_path):
    one, other = Models.open(tiny_models), Models.open(as_run(tiny_models, tmp_path / "models"))
    assert one.available() == other.available() == list(DEFAULT["methods"])
    for name in one.available():
        assert one.weights(name).read_bytes() == other.weights(name).read_bytes()
        assert one.card(name) == other.card(name)
    assert one.weights("gauss").name == "denoiser_P.safetensors"  # its stage, and what ADMM needs
    assert other.weights("rerg").relative_to(other.folder) == Path("rerg/G.safetensors")


def test_a_wheel_has_its_networks_inside_and_a_checkout_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", tmp_path / "rglib")
    assert shipped() == tmp_path / "weights"
    (tmp_path / "rglib" / "weights").mkdir(parents=True)
    assert shipped() == tmp_path / "rglib" / "weights"


@pytest.fixture
def copy(tiny_models, tmp_path):
    return shutil.copytree(tiny_models, tmp_path / "copy")


def test_a_missing_network_is_named_with_what_there_is(copy):
    (copy / "rerg_G.safetensors").unlink()
    with pytest.raises(ModelsError, match=r"rerg_G\.safetensors; .* there: gauss, .*, deqgd$"):
        Models.open(copy).weights("rerg")


def test_an_unknown_method_is_answered_with_the_known_ones(copy):
    with pytest.raises(ModelsError, match=r"unknown method 'rergg'; there are gauss, .*rerg"):
        Models.open(copy).weights("rergg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", None, "has no settings.json.*; copy it from where the networks are"),
        ("settings.json", "{", "settings.json: cannot be read"),
        ("settings.json", "[]", "is not a JSON object"),
        ("settings.json", '{"run": "r"}', "has no methods, evaluation, problems, admm"),
        ("rerg.card.json", None, "no model card .*rerg.card.json"),
        ("rerg.card.json", json.dumps({"network": {"widths": [1]}}), "must say widths and blocks"),
    ],
)
def test_damaged_folders_are_refused(copy, name, content, message):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(ModelsError, match=message):
        Models.open(copy).card("rerg")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelsError, match=r"no folder of networks .*nowhere"):
        Models.open(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [None, '{"run": "r"}'], ids=["missing", "incomplete"])
@pytest.mark.parametrize("named", ["", "./", "{here}/"], ids=["inside", "dot", "whole"])
def test_settings_of_a_run_are_had_again_as_the_message_says(tmp_path, monkeypatch, content, named):
    project = Project.copied(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    folder = Path(f"{named.format(here=project.folder)}work/test/models")
    folder.mkdir(parents=True)
    if content:
        (folder / "settings.json").write_text(content)
    with pytest.raises(ModelsError) as caught:
        Models.open(folder)
    if content:
        assert "delete it, and `" in str(caught.value)
        (folder / "settings.json").unlink()
    (command,) = re.findall(r"`snakemake ([^`]+)` in its project writes it", str(caught.value))
    project.snakemake(*command.split())  # with the --configfile of the training
    assert Models.open(folder).settings["run"] == "test"


def test_a_method_that_there_is_works_as_typed(copy):
    (copy / "rerg_G.safetensors").unlink()
    for missing, listed in (("rerg", r"is there: (.*)$"), ("rergg", r"there are (.*)$")):
        with pytest.raises(ModelsError) as caught:
            Models.open(copy).weights(missing)
        names = re.search(listed, str(caught.value))[1].split(", ")
        assert len(names) > 3
        for name in {*names} - {"rerg"}:
            assert Models.open(copy).weights(name).is_file()
