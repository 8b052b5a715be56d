"""What becomes of results as images change, at a small scale; and that remedies work as typed."""

import os
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_verify_workflow import found, verify
from test_workflow import Project, evaluate

from rglib.data.datasets import mirror_folders

pytestmark = pytest.mark.slow

TEST = {"data": {"test": "folder:mine", "test_stand_in": None}}
TARGET = "results/results.csv"
REST = {"results", "test_set", *evaluate("gauss", "pnpreg")}
CONFIGS = ("--configfile", "config/test.yaml", "overlay.yaml")


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def reduced(folder):
    """Two methods and two problems, with given networks: nothing is trained."""
    project = Project.copied(folder)

    def reduce(config):
        for key, kept in {
            "methods": ("gauss", "pnpreg"),
            "problems": ("deblur_s1.6", "sr2_bicubic_n0.01"),
        }.items():
            config[key] = {name: config[key][name] for name in kept}
        config["stages"]["denoiser"]["init"] = {"P": "orthogonal"}

    project.configure(reduce)
    return project


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project whose test set is a folder of two images, one odd file in it, and its results."""
    project = reduced(tmp_path_factory.mktemp("made") / "project")
    for seed, name in enumerate(("a", "b")):
        draw(project / f"mine/{name}.png", seed)
    (project / "mine/odd.png").write_text("no image")
    said = project.snakemake(TARGET, overlay=TEST)
    assert "left out odd.png: cannot read the image mine/odd.png" in said
    return project


@pytest.fixture
def project(made, tmp_path):
    return made.copy(tmp_path / "project")


def starts(project):
    """The PSNR that restoration starts from, by problem and image: of one picture one number."""
    results = pd.read_csv(project / TARGET)
    by = results.groupby(["problem_id", "image"]).psnr_start_db
    assert (by.nunique() == 1).all()
    return by.first()


def test_a_replaced_image_reruns_what_used_it_and_no_table_mixes_two(project):
    before = starts(project)
    assert project.planned(TARGET, overlay=TEST) == set()
    draw(project / "mine/b.png", 7)
    os.utime(project / "mine/b.png", (1, 1))  # an older picture is another one too
    assert found(verify(project, *CONFIGS)[1], "stale") == {"results.csv"}
    assert project.planned(TARGET, overlay=TEST) == REST
    project.snakemake(TARGET, overlay=TEST | {"admm": {"deblurring": {"iterations": 3}}})
    after = starts(project)
    changed = (before - after).abs() > 1e-6
    assert set(changed[changed].index.get_level_values("image")) == {"b"}
    assert verify(project, *CONFIGS)[0] == 0


def test_an_image_more_or_less_is_noticed_by_the_dry_run_and_by_verify(project):
    draw(project / "mine/c.png", 8)
    (project / "mine/a.png").unlink()
    finding = verify(project, *CONFIGS)[1]["results.csv"]
    assert finding["reasons"] == ["the test set: a.png is gone", "the test set: c.png was added"]
    assert project.planned(TARGET, overlay=TEST) == REST
    project.snakemake(TARGET, overlay=TEST)
    assert set(pd.read_csv(project / TARGET).image) == {"b", "c"}
    assert verify(project, *CONFIGS)[0] == 0
    assert project.planned(TARGET, overlay=TEST) == set()


def test_a_moved_or_copied_project_goes_on_without_a_word(project, tmp_path):
    (project.folder).rename(tmp_path / "renamed")
    moved = Project(tmp_path / "renamed")
    assert moved.planned(TARGET, overlay=TEST) == set()
    shutil.copytree(moved.folder, tmp_path / "copied", copy_function=shutil.copyfile)
    shutil.rmtree(moved.folder)
    copied = Project(tmp_path / "copied")
    assert verify(copied, *CONFIGS)[0] == 0
    again = TEST | {"admm": {"deblurring": {"iterations": 3}}}
    assert copied.planned(TARGET, overlay=again) == {"results", *evaluate("gauss")}
    copied.snakemake(TARGET, overlay=again)


def test_another_file_of_given_weights_is_noticed_whatever_its_time_says(project):
    weights = project / "mine.safetensors"
    shutil.copy(project / "work/test/models/denoiser/P.safetensors", weights)
    given = {"denoiser": {"P": {"file": weights.name}}, "pnpreg": None}
    overlay = TEST | {"run": "given", "init": "weights", "weights": given}
    card = "work/given/models/denoiser/card.json"
    project.snakemake(card, overlay=overlay)
    os.utime(weights)
    assert project.planned(card, overlay=overlay) == set()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, (1, 1))
    assert project.planned(card, overlay=overlay) == {"given_denoiser"}


def test_jobs_of_two_versions_are_refused(project):
    """With the user's own triggers, code may change beside what is there already."""
    project.mutate("rglib/core/algorithms.py", "PnPADMM.restore")
    settings = TEST | {"problems": {"deblur_s1.6": {"lr": 0.005}}}
    triggers = (TARGET, "--rerun-triggers", "input", "--forcerun", "results")
    said = project.snakemake(*triggers, overlay=settings, fails=True)
    assert "a result would mix both" in said
    project.snakemake(TARGET, overlay=settings)


# --- messages that name a remedy ------------------------------------------------------------------


@pytest.fixture
def set5():
    """A mirror with Set5."""
    mirrors = [mirror for mirror in mirror_folders() if (mirror / "Set5").is_dir()]
    if not mirrors:
        pytest.skip("RGLIB_MIRRORS names no folder with Set5/ in it")
    return mirrors[0]


STAND_IN = {"data": {"test": "set5", "test_stand_in": "folder:mine"}}


@pytest.mark.parametrize("by", ["mirror", "forcerun", "deleted"])
def test_a_stand_in_is_replaced_as_its_warning_says(project, set5, by):
    said = project.snakemake("work/test/test_set.json", overlay=STAND_IN)
    assert "it replaces the stand-in" in said and "--forcerun test_set" in said
    arguments = ["work/test/test_set.json"]
    if by == "forcerun":
        (option,) = re.findall(r"add: (--forcerun \w+)", said)
        arguments += shlex.split(option)
    if by == "deleted":
        (project / "work/test/test_set.json").unlink()
    project.snakemake(*arguments, overlay=STAND_IN, mirrors=set5)
    assert '"dataset": "set5"' in (project / "work/test/test_set.json").read_text()
    assert project.planned("work/test/test_set.json", overlay=STAND_IN) == set()


def test_a_file_that_was_swapped_during_the_run_is_named_and_listed_by_the_next(project):
    """The jobs are planned with one picture and read another: here with its listing untouched."""
    draw(project / "mine/b.png", 7)
    target = "work/test/evaluation/gauss.csv"
    alone = (target, "--forcerun", "evaluate", "--allowed-rules", "evaluate")
    said = project.snakemake(*alone, overlay=TEST, fails=True)
    assert "mine/b.png is no longer the file that was listed as b: run the same command" in said
    project.snakemake(TARGET, overlay=TEST)
    starts(project)


def test_images_that_are_gone_are_brought_back_or_looked_for_anew(project, tmp_path):
    settings = {"data": {"test": "photos_clic", "test_stand_in": None}}
    first, second = tmp_path / "first", tmp_path / "second"
    draw(first / "photos/clic/p.png", 3)
    target = "work/test/evaluation/gauss.csv"
    project.snakemake(target, overlay=settings, mirrors=first)
    first.rename(second)
    again = settings | {"admm": {"deblurring": {"iterations": 3}}}
    said = project.snakemake(target, overlay=again, fails=True)
    assert "p.png: bring them back, or have them in a mirror, and run the same command" in said
    project.snakemake(target, overlay=again, mirrors=second)
    (option,) = re.findall(r"(--forcerun \w+ \w+) downloads them anew", said)
    project.snakemake(target, *shlex.split(option), overlay=again, mirrors=second)


def test_a_damaged_store_is_built_anew_where_it_was_deleted(project):
    store = project / "work/test/store/train"
    (store / "pixels.npy").write_bytes((store / "pixels.npy").read_bytes()[:-3])
    card = "work/test/models/denoiser/card.json"
    longer = TEST | {"stages": {"denoiser": {"budget": {"steps": 3}}}}
    said = project.snakemake(card, overlay=longer, fails=True)
    log = (project / "work/test/logs/train_denoiser.log").read_text()
    assert "is damaged: delete it and run again" in said + log
    shutil.rmtree(store)
    project.snakemake(card, overlay=longer)


@pytest.mark.parametrize("status", ["missing", "unrecorded", "touched"])
def test_what_verify_says_to_do_works(project, status):
    result, record = project / TARGET, project / f"{TARGET}-metadata.json"
    if status == "touched":
        result.write_text("psnr_db\n99\n")
    (result if status == "missing" else record).unlink() if status != "touched" else None
    assert found(verify(project, *CONFIGS)[1], status) == {"results.csv"}
    result.unlink(missing_ok=True)  # "delete it", and of a touched one
    if status == "touched":
        record.unlink()  # "and its record"
    project.snakemake(TARGET, overlay=TEST)
    assert verify(project, *CONFIGS)[0] == 0


@pytest.mark.parametrize(
    "damaged", ["evaluation/gauss.csv", "restored/gauss/deblur_s1.6/results.csv"]
)
def test_an_evaluation_that_contradicts_itself_is_made_again_as_it_says(project, damaged):
    path = project / "work/test" / damaged
    before, rows = starts(project), path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))
    alone = (TARGET, "--rerun-triggers", "input")
    if damaged.startswith("restored"):
        (project / "work/test/evaluation/gauss.csv").unlink()
        project.snakemake("work/test/evaluation/gauss.csv", overlay=TEST)
        assert path.read_text().count("\n") == len(rows)  # it is not even collected
        return
    said = project.snakemake(*alone, overlay=TEST, fails=True)
    (typed,) = re.findall(r"evaluate it again, with (--forcerun \w+)", said)
    project.snakemake(TARGET, *shlex.split(typed), overlay=TEST)
    assert starts(project).equals(before)
