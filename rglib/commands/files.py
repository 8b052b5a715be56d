"""Files in and files out, from the command line: one image, or a folder of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rglib.data.photographs import check_format, photographs_in
from rglib.files import NAME_AT_MOST, check_writable


class FilesError(ValueError):
    """Files that cannot be read from or written to as asked; the message names them."""


def targets(source: Path, output: Path, *, ending: str) -> dict[Path, Path]:
    """The file that each image goes to: the output itself, or for a folder one in the output.

    In a folder they have the image's name with ``ending``; folders within it are not entered.

    Raises:
        FilesError: an image and a folder are mixed up, or two images go to one file.
        ImageError: the folder has no images, or the output has an unknown ending.
    """
    if not source.exists():
        raise FilesError(f"there is no {source}")
    if not source.is_dir():
        if output.is_dir():
            raise FilesError(f"{output} is a folder; name a file for what becomes of {source}")
        check_format(output)
        return {source: output}
    if output.exists() and not output.is_dir():
        raise FilesError(f"{output} is a file; name a folder for what becomes of those in {source}")
    found = {path: output / f"{path.stem}{ending}" for path in photographs_in(source)}
    for target in found.values():
        check_format(target)
    (target, count), *_ = Counter(found.values()).most_common(1)
    if count > 1:
        images = ", ".join(path.name for path in found if found[path] == target)
        raise FilesError(f"{images} of {source} would all go to {target}; rename them")
    return found


def companion(given: Path | None, image: Path, *, folder: bool) -> Path | None:
    """What belongs to an image: the file given, or in a folder given the one of the image's name.

    A single file belongs to every image; ``folder`` says whether they come from one.

    Raises:
        FilesError: it is not there, or there are several.
    """
    if given is None:
        return None
    if not given.is_dir():
        if not given.exists():
            raise FilesError(f"there is no {given}")
        return given
    if not folder:
        raise FilesError(f"{given} is a folder; name the file that belongs to {image}")
    found = [path for path in photographs_in(given) if path.stem == image.stem]
    if len(found) != 1:
        what = "nothing" if not found else ", ".join(path.name for path in found)
        raise FilesError(f"{given} should have one file for {image.name}, there is {what}")
    return found[0]


def check_outputs(outputs: Iterable[Path], *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Find out before the work whether the outputs may be written.

    Raises:
        FilesError: one is an input, or the same as another, or is there already and may not be
            overwritten, or its name is too long.
        PermissionError: files cannot be made in its folder.
    """
    read = {os.path.realpath(path) for path in inputs}
    written: set[str] = set()
    outputs = list(outputs)
    check_writable({path.parent for path in outputs})
    for path in outputs:
        if len(os.fsencode(path.name)) > NAME_AT_MOST:
            raise FilesError(f"{path} has a name of more than {NAME_AT_MOST} bytes; shorten it")
        real = os.path.realpath(path)  # Path.resolve gives up at links that lead in a circle
        if real in read:
            raise FilesError(f"{path} is what is read from; name another output")
        if real in written:
            raise FilesError(f"{path} would be written twice; name different files")
        if path.is_dir():
            raise FilesError(f"{path} is a folder, and a file is to be written there")
        if path.exists() and not overwrite:
            raise FilesError(f"{path} is there already; --overwrite replaces it")
        written.add(real)
