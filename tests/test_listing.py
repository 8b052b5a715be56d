"""Whether a changed data set is noticed, and an unchanged one left alone."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rglib.data import listing
from rglib.data.datasets import CATALOGUE, DatasetUnavailable, resolve, resolve_test
from rglib.data.images import ImageError, read_listed, write_png
from rglib.data.listing import changes, checksums, parameter, write
from rglib.data.manifest import Manifest
from rglib.files import file_digest

DOWNLOADS = Path("work/downloads")


def image(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((8, 8, 3), number, np.uint8))
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a folder and a mirror, as the working folder."""
    folder = tmp_path / "project"
    for number, name in enumerate(["mine/a", "mine/b", "mirror/photos/clic/c"]):
        image(folder / f"{name}.png", number)
    monkeypatch.chdir(folder)
    return folder


class Rule:
    """What Snakemake does with a manifest: it runs where the parameter is another than it was.

    It removes what is to be written, and asks again.
    """

    def __init__(self, dataset, stand_in=None):
        self.dataset, self.stand_in = dataset, stand_in
        self.path, self.recorded = Path("work/m.json"), None

    def runs(self, *mirrors):
        asked = self.asks(mirrors)
        if asked == self.recorded:
            return False
        self.path.unlink(missing_ok=True)
        assert self.asks(mirrors) == asked
        found = resolve_test(
            self.dataset,
            stand_in=self.stand_in,
            mirrors=mirrors,
            data_dir=DOWNLOADS,
            offline=True,
        )
        write(replace(found, listed=asked), self.path)
        self.recorded = asked
        return True

    def asks(self, mirrors):
        return parameter(self.path, self.dataset, mirrors=mirrors, data_dir=DOWNLOADS)


@pytest.fixture(params=["folder", "mirror", "embedded"])
def listed(request, project):
    """A rule that has run, its mirrors, and one of its files."""
    dataset, mirrors, file = {
        "folder": ("folder:mine", [], Path("mine/b.png")),
        "mirror": ("photos_clic", [Path("mirror")], Path("mirror/photos/clic/c.png")),
        "embedded": ("embedded_test", [], DOWNLOADS / "embedded_test/coffee.png"),
    }[request.param]
    rule = Rule(dataset)
    assert rule.runs(*mirrors)
    return rule, mirrors, file


def test_what_has_not_changed_is_not_listed_again(listed):
    rule, mirrors, file = listed
    assert not rule.runs(*mirrors)
    os.utime(file, (1, 1))
    file.with_name("notes.txt").write_text("no image")
    file.with_name(".hidden.png").write_text("no image")
    assert not rule.runs(*mirrors)


def test_a_replaced_file_is_listed_once_more_whatever_its_time_says(listed):
    rule, mirrors, file = listed
    stat = file.stat()
    image(file, 77)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert rule.runs(*mirrors)
    assert not rule.runs(*mirrors)


def test_files_that_come_and_go_are_noticed(listed):
    rule, mirrors, file = listed
    image(file.with_name("more.png"), 78)
    assert rule.runs(*mirrors) == (rule.dataset != "embedded_test")
    file.unlink()
    assert rule.runs(*mirrors)
    assert not rule.runs(*mirrors)


def test_a_file_put_back_is_a_change_too(project):
    rule = Rule("folder:mine")
    kept = Path("mine/b.png").read_bytes()
    assert rule.runs()
    for content in (Path("mine/a.png").read_bytes(), kept):
        Path("mine/b.png").write_bytes(content)
        assert rule.runs() and not rule.runs()


def test_a_deleted_manifest_of_a_changed_folder_is_made_from_what_is_there(project):
    rule = Rule("folder:mine")
    assert rule.runs()
    image(Path("mine/b.png"), 79)
    rule.path.unlink()
    assert rule.runs() and not rule.runs()


def test_a_moved_project_has_not_changed(listed, project, monkeypatch):
    rule, mirrors, _ = listed
    project.rename(project.with_name("renamed"))
    monkeypatch.chdir(project.with_name("renamed"))
    assert not rule.runs(*mirrors)
    assert all(read_listed(file) is not None for file in Manifest.read(rule.path).images)
    shutil.copytree(".", "../copied")
    monkeypatch.chdir("../copied")
    assert not rule.runs(*mirrors)


def test_which_mirror_it_is_in_does_not_matter(project):
    rule, second = Rule("photos_clic"), Path("second")
    assert rule.runs(Path("mirror"))
    shutil.copytree("mirror", second)
    assert not rule.runs(second, Path("mirror"))
    assert not rule.runs()  # the variable of the environment is not set this time
    shutil.rmtree("mirror")
    assert rule.runs(second) and not rule.runs(second)
    assert Manifest.read(rule.path).images[0].path.is_relative_to(second)
    shutil.rmtree(second)
    assert not rule.runs()
    with pytest.raises(FileNotFoundError, match=r"c\.png: bring them back"):
        Manifest.read(rule.path)


@pytest.fixture
def toy(monkeypatch):
    """A data set of one image, Toy, that can stand in a mirror or be downloaded."""
    dataset = replace(CATALOGUE["set5"], id="toy", title="Toy", layouts=("Toy/*.png",))
    dataset = replace(dataset, count=None, rgb_sha256=None)
    monkeypatch.setitem(CATALOGUE, "toy", dataset)


def test_a_stand_in_is_replaced_as_soon_as_the_test_set_is_at_hand(project, toy):
    rule = Rule("toy", stand_in="folder:mine")
    assert rule.runs() and not rule.runs()
    assert Manifest.read(rule.path).stand_in_for == "Toy"
    image(Path("mine/more.png"), 5)
    assert rule.runs() and not rule.runs()
    image(Path("mirror/Toy/t.png"), 6)
    assert rule.runs(Path("mirror"))
    assert Manifest.read(rule.path).dataset == "toy"
    assert not rule.runs(Path("mirror")) and not rule.runs()


def test_a_stand_in_whose_manifest_was_deleted_is_replaced_too(project, toy):
    rule = Rule("toy", stand_in="folder:mine")
    assert rule.runs()
    rule.path.unlink()
    image(Path("mirror/Toy/t.png"), 6)
    assert rule.runs(Path("mirror")) and not rule.runs(Path("mirror"))


def test_what_is_downloaded_in_the_run_is_not_a_change(project, toy):
    rule = Rule("toy")
    with pytest.raises(DatasetUnavailable):
        rule.runs()
    asked = parameter(rule.path, "toy", mirrors=(), data_dir=DOWNLOADS)
    image(DOWNLOADS / "Toy/t.png", 6)  # as a download does
    found = resolve("toy", mirrors=(), data_dir=DOWNLOADS)
    write(replace(found, listed=asked), rule.path)
    rule.recorded = asked
    assert not rule.runs()
    image(DOWNLOADS / "Toy/t.png", 7)
    assert rule.runs() and not rule.runs()


def test_changes_are_named(project):
    manifest = resolve("folder:mine", mirrors=(), data_dir=DOWNLOADS)
    places = {"mirrors": (), "data_dir": DOWNLOADS}
    assert changes(manifest, **places) == []
    image(Path("mine/a.png"), 9)
    image(Path("mine/c.png"), 9)
    Path("mine/b.png").unlink()
    said = ["a.png has changed", "b.png is gone", "c.png was added"]
    assert changes(manifest, **places) == said
    shutil.rmtree("mine")
    assert changes(manifest, **places) == []  # the disk may not be there at the moment


def test_what_was_left_out_is_listed_too(project):
    Path("mine/odd.png").write_text("no image")
    rule = Rule("folder:mine")
    assert rule.runs() and not rule.runs()
    image(Path("mine/odd.png"), 3)
    assert rule.runs()
    assert len(Manifest.read(rule.path).images) == 3


def test_a_file_that_is_not_the_listed_one_is_never_read(project):
    manifest = resolve("folder:mine", mirrors=(), data_dir=DOWNLOADS)
    image(Path("mine/b.png"), 9)
    assert read_listed(manifest.images[0]).max() == 0
    with pytest.raises(ImageError, match=r"mine/b\.png is no longer the file"):
        read_listed(manifest.images[1])


def test_checksums_are_remembered_and_right(project, monkeypatch):
    files = [Path("mine/a.png"), Path("mine/b.png"), Path("mine/gone.png")]
    expected = [(path, file_digest(path)) for path in files[:2]] + [(files[2], "")]
    monkeypatch.setattr(listing, "SETTLED", -1.0)
    assert checksums(files, DOWNLOADS) == expected
    monkeypatch.setattr(listing, "file_digest", None)
    assert checksums(files, DOWNLOADS) == expected
    monkeypatch.undo()
    monkeypatch.chdir(project)
    image(files[0], 50)
    assert checksums(files, DOWNLOADS)[0] == (files[0], file_digest(files[0]))


def test_a_file_that_was_just_written_is_not_remembered(project):
    image(Path("mine/a.png"), 50)
    checksums([Path("mine/a.png")], DOWNLOADS)
    assert not (DOWNLOADS / "checksums.json").exists()


def test_without_a_place_to_remember_checksums_are_computed(project):
    DOWNLOADS.parent.mkdir()
    DOWNLOADS.write_text("in the way")
    path = Path("mine/a.png")
    assert checksums([path], DOWNLOADS) == [(path, file_digest(path))]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"title": 1}'])
def test_a_damaged_manifest_is_made_again(project, content):
    rule = Rule("folder:mine")
    rule.path.parent.mkdir()
    rule.path.with_suffix(".listed").write_text(content)
    assert rule.runs() and not rule.runs()
    assert len(Manifest.read(rule.path).images) == 2
