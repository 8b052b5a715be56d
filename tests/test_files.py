"""What every file that is written has in common, on a full or read-only disk or when killed."""

import errno
import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from toys import toy_provenance

from rglib.core.networks import save_weights
from rglib.data.images import build_store, write_png
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import MACHINE, check_writable, file_digest, replacing, writing
from rglib.report.evaluations import write_text
from rglib.training.checkpoint import Checkpoints

# --- full disks -----------------------------------------------------------------------------------

PROVENANCE = toy_provenance()
BEFORE, AFTER = 4_000, 150_000  # bytes, of what is there and of what the disk has no room for


def noise(size):
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def checkpoint(path, size):
    Checkpoints(path.parent, "").save({"noise": torch.from_numpy(noise(size))})


def weights(path, size):
    save_weights(path, {"noise": torch.from_numpy(noise(size))})


def png(path, size):
    write_png(path, noise(3 * (size // 3)).reshape(1, -1, 3))


def text(path, size):
    write_text("x" * size, path, title="T", provenance=PROVENANCE)


def csv(path, size):
    with replacing(path) as partial:
        pd.DataFrame({"n": noise(size)}).to_csv(partial, index=False)


def manifest(path, size):
    image = ImageFile("x" * size, path, "0" * 64)
    Manifest("toy", "Toy", "folder", (image,)).write(path)


def store(path, size):
    """Of an image beside the folder, on a disk that is not full."""
    file = path.parents[2] / f"{size}.png"
    write_png(file, np.broadcast_to(np.uint8(7), (32, size // 96, 3)))
    image = ImageFile("a", file, hashlib.sha256(file.read_bytes()).hexdigest())
    build_store([Manifest("toy", "Toy", "folder", (image,))], path.parent, min_size=8)


WRITERS = {
    "newest.ckpt": checkpoint,
    "weights.safetensors": weights,
    "image.png": png,
    "text.md": text,
    "table.csv": csv,
    "manifest.json": manifest,
    "pixels.npy": store,
}


@pytest.fixture(params=["no file may grow", "a disk of a megabyte"])
def disk(request, tmp_path, full_disk):
    """A folder, and a context in which it has no room for what is written to it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "no file may grow":
        return folder, lambda: full_disk(100_000), errno.EFBIG
    request.getfixturevalue("mount")(folder, "size=1m")

    @contextmanager
    def filled():
        disk = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 60_000))
        yield
        (folder / "filler").unlink()

    return folder, filled, errno.ENOSPC


def contents(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_names_the_new_one(name, disk):
    folder, full, expected = disk
    path, write = folder / "made" / name, WRITERS[name]
    write(path, BEFORE)
    before = contents(path.parent)
    with full(), pytest.raises(OSError, match=f"cannot write: .*{name}") as caught:
        write(path, AFTER)
    assert caught.value.errno == expected
    before.pop(path.parent / "store.json", None)  # without it the store is none: it is made again
    assert contents(path.parent) == before
    write(path, AFTER)
    assert len(path.read_bytes()) > len(before[path])


def test_only_the_systems_nameless_errors_are_given_the_name(tmp_path):
    with pytest.raises(OSError, match=r"^no number$"), writing(tmp_path):
        raise OSError("no number")
    with pytest.raises(FileNotFoundError, match="another") as caught, writing(tmp_path):
        (tmp_path / "another").read_text()
    assert caught.value.filename == str(tmp_path / "another")


# --- kills ----------------------------------------------------------------------------------------


def test_what_killed_processes_have_left_is_cleared_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "a [1].csv"

    def partial_of(process, *, stem="a [1]", machine=MACHINE):
        return f".{stem}.{machine}{process}.part.csv"

    kept = {
        partial_of(os.getppid()),
        partial_of("me"),
        partial_of(ended.pid, stem="b"),
        partial_of(ended.pid, machine="another-"),
    }
    for name in (partial_of(ended.pid), partial_of(10**30), *kept):
        (tmp_path / name).write_text("half")
    with replacing(path) as partial:
        partial.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, *kept}


# --- read-only folders ----------------------------------------------------------------------------


def test_folders_that_can_be_written_or_made_are_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable([tmp_path, "results", "work/run"])
    assert not list(tmp_path.iterdir())


def test_a_read_only_folder_is_named(tmp_path, read_only):
    (tmp_path / "results").mkdir()
    read_only(tmp_path / "results")
    for folder in (tmp_path / "results", tmp_path / "results" / "deep" / "er"):
        with pytest.raises(PermissionError, match=f"{folder}: .*results is read-only"):
            check_writable([tmp_path, folder])
    with pytest.raises(OSError, match="results") as caught:
        text(tmp_path / "results" / "a.txt", 10)
    assert caught.value.errno in (errno.EROFS, errno.EACCES)


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "work").write_text("")
    with pytest.raises(
        PermissionError, match=r"work/run: .*work is read-only for this user, or no"
    ):
        check_writable([tmp_path / "work" / "run"])


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "ü" * 125 + ".csv"], ids=["x", "ü"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    with replacing(tmp_path / name) as partial:
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no file"):
        file_digest(tmp_path / "pipe")
