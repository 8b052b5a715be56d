import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_quarter import QUARTER, STAGES, TINY, tiny_config

from rglib.core.networks import build
from rglib.data.images import write_png
from rglib.data.manifest import Manifest
from rglib.gpu import parcel, quarter
from rglib.gpu.parcel import (
    VALIDATION,
    ParcelError,
    assignment_of,
    configuration,
    main,
    pack,
)
from rglib.gpu.quarter import Assignment
from rglib.gpu.travel import MIB, States
from rglib.plan.ablations import overlaid
from rglib.plan.seeds import is_given

ROOT = Path(__file__).parent.parent
SO_FAR = {"steps": 3, "finished": False}


@pytest.fixture(autouse=True)
def project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def photographs(tmp_path):
    """A data set of a noisy image, which takes many bytes, and smooth ones, which take few."""
    folder = tmp_path / "photographs"
    noisy = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    write_png(folder / "a_noisy.png", noisy)
    for name in "bcd":
        write_png(folder / f"{name}.png", np.full((256, 256, 3), ord(name), np.uint8))
    return f"folder:{folder}"


def data_of(photographs):
    return {"data": {"train": [photographs], "validation": ["embedded_validation"]}}


def tiny_on(photographs):
    return tiny_config(**data_of(photographs))


@pytest.fixture
def configured(photographs, tmp_path):
    """The same configuration for a command line."""
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(overlaid(TINY, data_of(photographs))))
    return ["--configfile", *map(str, QUARTER), str(overlay)]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_parcel_holds_the_code_the_plan_a_network_and_images_as_they_are(photographs, tmp_path):
    folder = tmp_path / "parcel"
    made = pack(folder, tiny_on(photographs))
    assert made.images == made.images_in_all == 4
    there = files(folder)
    assert made.size == sum((folder / name).stat().st_size for name in there) < 64 * MIB
    for package in ("rglib", "benchmarks"):
        assert {str(path) for path in Path(package).rglob("*.py")} <= there
    assert {"weights/rerg_G.safetensors", "weights/settings.json"} <= there
    assignment = Assignment.read(folder / "parcel.json")
    assert [settings.name for settings in assignment.stages] == STAGES


def test_manifests_are_of_the_files_in_the_parcel(photographs, tmp_path, monkeypatch):
    folder = tmp_path / "parcel"
    pack(folder, tiny_on(photographs))
    source = Path(photographs.removeprefix("folder:"))
    monkeypatch.chdir(folder)
    (path,) = Path("images/train").glob("*.json")
    manifest = Manifest.read(path)
    assert [image.name for image in manifest.images] == ["a_noisy", "b", "c", "d"]
    for image in manifest.images:
        assert not image.path.is_absolute()
        assert image.path.read_bytes() == (source / image.path.name).read_bytes()


def test_folders_of_like_names_do_not_mix(photographs, tmp_path):
    like = [tmp_path / "a" / "b", tmp_path / "a_b"]
    for folder in like:
        shutil.copytree(photographs.removeprefix("folder:"), folder)
    config = tiny_on(photographs)
    config["data"] |= {"train": [f"folder:{folder}" for folder in like]}
    packed = pack(tmp_path / "parcel", config)
    assert packed.images == len(list((tmp_path / "parcel/images/train").glob("*/*.png"))) == 8


def test_only_validation_images_must_be_as_large_as_the_crop_looked_at(
    photographs, tmp_path, monkeypatch
):
    asked = {}
    monkeypatch.setattr(
        quarter,
        "build_store",
        lambda _, folder, *, min_size: asked.update({folder.name: min_size}),
    )
    assignment = replace(assignment_of(tiny_on(photographs)), min_size=128)
    monkeypatch.chdir(tmp_path)  # where no store has been made
    quarter.build_stores(assignment)
    assert asked == {"train": 128, "validation": VALIDATION["denoising_crop"]}


def test_images_with_most_pixels_in_a_byte_go_first_and_nothing_exceeds_the_limit(
    photographs, tmp_path
):
    whole = pack(tmp_path / "whole", tiny_on(photographs))
    limit = whole.size - 1000  # the noisy one has 200 KB
    made = pack(tmp_path / "small", tiny_on(photographs), limit=limit)
    assert made.size <= limit and made.images == 3
    assert not any("a_noisy" in name for name in files(tmp_path / "small"))
    with pytest.raises(ParcelError, match="no training image fits"):
        pack(tmp_path / "tight", tiny_on(photographs), limit=MIB)


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    overlay = ["--configfile", *map(str, QUARTER)]
    assert main(["pack", str(tmp_path), *overlay]) == 2
    assert "is there already" in capsys.readouterr().err
    assert files(tmp_path) == {"mine.txt"}


def test_a_parcel_that_is_too_small_is_packed_as_the_messages_say(configured, tmp_path, capsys):
    def typed(folder, *options):
        status = main(["pack", str(tmp_path / folder), *configured, *options])
        return status, "".join(capsys.readouterr())

    status, said = typed("parcel", "--mib", "1")
    (option,) = re.findall(r"allow more with (--\w+)$", said.strip())
    assert status == 2 and not any("parcel" in path.name for path in tmp_path.iterdir())
    assert typed("parcel", option, "64")[0] == 0
    status, said = typed("parcel", option, "64")
    assert status == 2 and said.strip().endswith("delete it, or name another folder")
    assert typed("another", option, "64")[0] == 0
    (there,) = re.findall(r"(\S+) is there already", said)
    shutil.rmtree(there)
    assert typed("parcel", option, "64")[0] == 0


def test_a_package_that_is_not_there_is_named_before_anything_is_made(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setattr(parcel, "PRESENT", parcel.PRESENT - {"filelock"})
    with pytest.raises(ParcelError, match="imports filelock, which is not there"):
        pack(tmp_path / "parcel", tiny_on(photographs))
    assert not (tmp_path / "parcel").exists()


def test_a_wheel_brings_a_package_along(photographs, configured, tmp_path, monkeypatch):
    monkeypatch.setattr(parcel, "PRESENT", parcel.PRESENT - {"filelock"})
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "filelock-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("filelock/__init__.py", "")
        wheel.writestr("filelock-1.dist-info/METADATA", "")
    with pytest.raises(ParcelError) as caught:
        pack(tmp_path / "parcel", tiny_on(photographs))
    (option,) = re.findall(r"name a folder with its wheel in (--\w+)$", str(caught.value))
    typed = [option, str(tmp_path / "wheels")]
    assert main(["pack", str(tmp_path / "parcel"), *configured, *typed]) == 0
    assert "site/filelock/__init__.py" in files(tmp_path / "parcel")


def test_trainings_that_came_back_travel_on(photographs, tmp_path):
    states = States(tmp_path / "states")
    network = build("P", widths=(16, 16, 16, 16), blocks=1)
    states.write("denoiser", {"P": network.state_dict()}, card=SO_FAR, history=[{"step": 0}])
    (states.folder / "records").mkdir()
    (states.folder / "records" / "agree.json").write_text("{}")
    (states.folder / "records" / "validation.json").write_text("{}")
    folder = tmp_path / "parcel"
    pack(folder, tiny_on(photographs), states=states.folder)
    there = files(folder)
    card = json.loads((folder / "states" / "denoiser.card.json").read_text())
    assert card["steps"] == 3 and "states/denoiser_P.safetensors" in there
    assert "records/agree.json" in there  # is not done again
    assert "records/validation.json" not in there


def test_an_overlay_gives_what_came_back_to_a_run(tmp_path):
    states = States(tmp_path)
    states.write("mtdeq", {"P": {}}, card={}, history=[{"step": 0}])
    states.write("score", {}, card={}, history=[{"step": 0}])
    path = parcel.as_given(states)
    config = configuration([*QUARTER, path])
    assert is_given("mtdeq", config) and not is_given("denoiser", config)
    assert parcel.yaml.safe_load(path.read_text()) == {
        "init": "weights",
        "device": "auto",
        "weights": {"mtdeq": {"P": {"file": str(tmp_path / "mtdeq_P.safetensors")}}},
    }
