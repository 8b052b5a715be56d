"""Whether data sets are still what was listed: what the workflow asks before each run.

A manifest says what a data set consisted of when it was listed. `changes` compares it with what
lies there now, by content, and `parameter` turns the answer into a parameter of the rule that makes
the manifest: the same as long as nothing has changed, so that Snakemake lists the data set anew
just where that makes a difference. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from rglib.data.datasets import CATALOGUE, FOLDER_PREFIX, at_hand, shown
from rglib.data.manifest import Manifest
from rglib.files import file_digest, replacing

SETTLED = 2.0  # seconds after which a file that changes has another time, on any file system


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest, and a copy beside it for `parameter`.

    Snakemake asks for a rule's parameters when it plans and again when the job starts, by when it
    has removed the manifest that the job is to write.
    """
    manifest.write(path)
    manifest.write(_copy_of(path))


def _copy_of(path: Path) -> Path:
    return path.with_suffix(".listed")


def parameter(
    manifest: Path,
    dataset_id: str,
    *,
    mirrors: Sequence[Path],
    data_dir: Path,
) -> str:
    """What the rule that writes a manifest depends on: it runs again where this is another.

    That is what the manifest was made with, as long as it says what would be listed now. It does
    not where a file was added, removed or replaced, where its files have moved, and where it is of
    a stand-in while the data set itself is at hand. A data set that is out of reach by now is not
    held against it. Where there is no manifest yet, of a folder its content counts.
    """
    written = _written(_copy_of(manifest))
    files = at_hand(dataset_id, mirrors=mirrors, data_dir=data_dir)
    if written is None or not _is_known(written.dataset):
        if dataset_id.startswith(FOLDER_PREFIX):
            return _content(files, data_dir)
        return "at hand" if files else ""
    files = files or at_hand(written.dataset, mirrors=mirrors, data_dir=data_dir)
    moved = files and not all(image.path.is_file() for image in written.images)
    if moved or changes(written, mirrors=mirrors, data_dir=data_dir):
        return _content(files, data_dir)
    return written.listed


def changes(
    manifest: Manifest, *, mirrors: Sequence[Path], data_dir: Path, root: Path = Path()
) -> list[str]:
    """How a data set differs from what was listed, in words: none where it does not.

    Args:
        manifest: what was listed.
        mirrors: folders to look in.
        data_dir: where downloads lie.
        root: the project's folder, that paths in the manifest and the data set's id start from.
    """
    if not _is_known(manifest.dataset):
        return [f"{manifest.dataset} is no data set any more"]
    for dataset in CATALOGUE.values():
        if dataset.title == manifest.stand_in_for and at_hand(
            dataset.id, mirrors=mirrors, data_dir=data_dir, root=root
        ):
            return [f"{dataset.title}, which it stands in for, is at hand"]
    files = at_hand(manifest.dataset, mirrors=mirrors, data_dir=data_dir, root=root)
    if not files and not _is_emptied(manifest, root):
        return []
    now = {shown(path.name): digest for path, digest in checksums(files, data_dir)}
    before = {shown(image.path.name): image.sha256 for image in manifest.images}
    before |= {file.file: file.sha256 or "" for file in manifest.left_out}
    said = {name: f"{name} was added" for name in now.keys() - before.keys()}
    said |= {name: f"{name} is gone" for name in before.keys() - now.keys()}
    both = now.keys() & before.keys()
    said |= {name: f"{name} has changed" for name in both if now[name] != before[name]}
    return [said[name] for name in sorted(said)]


def _is_known(dataset_id: str) -> bool:
    return dataset_id in CATALOGUE or dataset_id.startswith(FOLDER_PREFIX)


def _is_emptied(manifest: Manifest, root: Path) -> bool:
    folder = Path(manifest.dataset.removeprefix(FOLDER_PREFIX)).expanduser()
    return manifest.dataset.startswith(FOLDER_PREFIX) and (root / folder).is_dir()


def _written(path: Path) -> Manifest | None:
    """The manifest, or None where there is none that can be read."""
    try:
        return Manifest.load(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _content(files: Sequence[Path], data_dir: Path) -> str:
    """A hash of files: of their places, as the manifest has them, and of what they hold."""
    listed = [(shown(str(path)), digest) for path, digest in checksums(files, data_dir)]
    return hashlib.sha256(json.dumps(sorted(listed)).encode()).hexdigest()


# ------------------------------------------------------------------------- checksums, remembered


def checksums(files: Iterable[Path], data_dir: Path) -> list[tuple[Path, str]]:
    """The sha256 of files, "" of one that cannot be read.

    They are remembered in the folder of downloads, for as long as size, times and number of a file
    stay: any write changes its ctime. What was written just now is not remembered, as it may change
    once more within the same tick of the clock.
    """
    memory = data_dir / "checksums.json"
    remembered: dict[str, list[str]] = {}
    with suppress(OSError, ValueError):
        remembered = json.loads(memory.read_text(encoding="utf-8"))
    known = dict(remembered)
    found = []
    for path in files:
        key = shown(str(path.absolute()))
        try:
            stat = path.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
            if known.get(key, [""])[0] != state:
                known[key] = [state, file_digest(path)]
                if time.time() - max(stat.st_mtime, stat.st_ctime) < SETTLED:
                    found.append((path, known.pop(key)[1]))
                    continue
            found.append((path, known[key][1]))
        except OSError:
            found.append((path, ""))
    if known != remembered:
        with suppress(OSError), replacing(memory) as partial:  # without it, they are computed
            partial.write_text(json.dumps(known, indent=0), encoding="utf-8")
    return found
