"""Whole files or none: how they are written, and their checksums."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# on a shared disk the number of a process says nothing about other machines
NAME_AT_MOST = 255  # bytes, on the file systems that people have
STEM_AT_MOST = 200  # of it, so that a process can be named beside
MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:6] + "-"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in the operating system's errors: a full disk's do not.

    Errors that name another file, and errors that are not the operating system's, pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` when the block ends without an error.

    The folder is made where it is missing; the file's ending is kept, as writers go by it. What is
    renamed is on the disk: a power cut leaves the old file or the new one. What a killed process
    has left beside is cleared away.

    Raises:
        OSError: the file could not be written; it names the file and says why.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        partial = path.with_name(f".{_start(path)}.{MACHINE}{os.getpid()}.part{path.suffix}")
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _start(path: Path) -> str:
    """The name without its ending, cut off where nothing could be added to it."""
    return os.fsdecode(os.fsencode(path.stem)[:STEM_AT_MOST])


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def check_writable(folders: Iterable[Path]) -> None:
    """Find out before the work whether its results can be written; nothing is made or changed.

    Raises:
        PermissionError: files cannot be made in a folder, or where it would be made.
    """
    for folder in map(Path, folders):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise PermissionError(
                f"cannot write into {folder}: {there} is read-only for this user, or no folder"
            )


def _clear_leftovers(path: Path) -> None:
    """Remove what ended processes of this machine began to write: a store may be gigabytes."""
    before, after = f".{_start(path)}.{MACHINE}", f".part{path.suffix}"
    for left in path.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}"):
        process = left.name.removeprefix(before).removesuffix(after)
        if process.isdecimal() and not _runs(int(process)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # it does, as another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
