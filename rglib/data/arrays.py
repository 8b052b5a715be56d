"""Arrays of numbers in files: .npy, .npz, MATLAB's .mat and text. Nothing in a file is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from scipy.io import loadmat
from scipy.sparse import issparse

from rglib.data.decoding import ImageError

ARRAYS = (".npy", ".npz", ".mat")
MATLAB = ".mat"
TEXT = (".csv", ".txt", ".tsv")
NUMBERS = "biuf"  # NumPy's kinds: bool, integers, floats
LISTED = 8  # names of arrays in a message


def read_array(
    path: Path, *, choosing: str, name: str | None = None, stacked: bool = False
) -> np.ndarray:
    """Read the one array of numbers in .npy, .npz or .mat, or of several the one with a ``name``.

    It comes in the type it is stored in, of this machine's byte order. Cells and fields of .mat
    have names such as ``kernels[0]`` and ``blur.kernel``; single numbers beside arrays are passed
    over. With ``stacked`` an array of three axes is several, ``kernels[0]`` and so on, along the
    last axis where the first two are equal, else along the first. ``choosing`` says in the error
    what to do about several.

    Raises:
        ImageError: the file is missing or damaged, holds no numbers, no such name or several
            arrays; a number is not finite.
    """
    content = _arrays(path)
    found = {key: array for key, array in content.items() if array.dtype.kind in NUMBERS}
    if stacked:
        found = {key: part for stack, array in found.items() for key, part in _parts(stack, array)}
    if any(array.size > 1 for array in found.values()):
        found = {key: array for key, array in found.items() if array.size > 1}
    if not found:
        types = ", ".join(sorted({str(array.dtype) for array in content.values()})) or "nothing"
        raise ImageError(f"cannot use {path}: it holds {types}, and no integers or floats")
    if name is not None and name not in found:
        raise ImageError(f"cannot use {path}: there is no {name} in it, but {_listed(found)}")
    if name is None and len(found) > 1:
        raise ImageError(
            f"cannot use {path}: it holds several arrays, {_listed(found)}; {choosing}"
        )
    array = found[name] if name is not None else next(iter(found.values()))
    if array.size == 0 or not np.isfinite(array).all():
        raise ImageError(f"cannot use {path}: it is empty or has values that are not finite")
    return array.astype(array.dtype.newbyteorder("="))


def read_text(path: Path) -> np.ndarray:
    """Read a table of numbers, float64 (rows, columns), from a text file.

    Columns are separated by semicolons, tabs, commas or blanks, whichever comes first in this list
    and in the file; where it is semicolons or tabs, a comma is a decimal point. Empty lines, what
    follows a # and separators at a line's end do not count.

    Raises:
        ImageError: it is missing, is not such a table, or a number is not finite.
    """
    lines = [line.split("#")[0].strip() for line in _text(path).splitlines()]
    separator = next((s for s in (";", "\t", ",") if any(s in line for line in lines)), None)
    rows = {
        number: _row(line, separator, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line
    }
    if not rows:
        raise ImageError(f"cannot read numbers from {path}: there are none")
    first, length = next((number, len(row)) for number, row in rows.items())
    for number, row in rows.items():
        if len(row) != length:
            raise ImageError(
                f"cannot read numbers from {path}: line {first} has {length} of them, "
                f"line {number} has {len(row)}"
            )
    return np.array(list(rows.values()), dtype=np.float64)


def without_single_axes(array: np.ndarray) -> np.ndarray:
    """Drop leading and trailing axes of length 1 as long as more than two are left."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def shape_of(array: np.ndarray) -> str:
    """Rows x columns, for messages."""
    return "x".join(map(str, array.shape)) or "a single number"


def _parts(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    array = without_single_axes(array)
    if array.ndim != 3:
        yield name, array
        return
    last = array.shape[0] == array.shape[1] != array.shape[2]
    for i, part in enumerate(np.moveaxis(array, 2 if last else 0, 0)):
        yield f"{name}[{i}]", part


def _listed(found: dict[str, np.ndarray]) -> str:
    names = [f"{name} ({shape_of(array)})" for name, array in found.items()]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as Excel's "Unicode text"
        return content.decode("utf-16" if marked else "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ImageError(f"cannot read numbers from {path}: it is no text") from error
    except OSError as error:
        raise ImageError(f"cannot read numbers from {path}: {error.strerror or error}") from error


def _row(line: str, separator: str | None, where: str) -> list[float]:
    if separator in (";", "\t"):
        line = line.replace(",", ".")
    if separator is not None:
        line = line.removesuffix(separator)
    cells = [cell.strip() for cell in line.split(separator)]
    try:
        row = [float(cell) for cell in cells]
    except ValueError as error:
        raise ImageError(f"cannot read numbers from {where}: {error}") from error
    if not np.isfinite(row).all():
        raise ImageError(f"cannot read numbers from {where}: they are not all finite")
    return row


# --- NumPy and MATLAB -----------------------------------------------------------------------------


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What is in a file, by name."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ImageError(f"cannot read the array {path}: it is no file")
        with path.open("rb") as file:
            return _of_matlab(file) if path.suffix.lower() == MATLAB else _of_numpy(file)
    except (ImageError, MemoryError):
        raise
    except OSError as error:
        why = error.strerror or "it is damaged"
        raise ImageError(f"cannot read the array {path}: {why}") from error
    except NotImplementedError as error:
        raise ImageError(
            f"cannot read the array {path}: it is of MATLAB's version 7.3; save it with -v7"
        ) from error
    except Exception as error:  # whatever a damaged or hostile file provokes
        why = (
            "it holds Python objects" if "Object arrays" in str(error) else "it is damaged, or none"
        )
        raise ImageError(f"cannot read the array {path}: {why}") from error


def _of_numpy(file: BinaryIO) -> dict[str, np.ndarray]:
    content = np.load(file, allow_pickle=False)
    return dict(content) if isinstance(content, NpzFile) else {"array": content}


def _of_matlab(file: BinaryIO) -> dict[str, np.ndarray]:
    content = loadmat(file)
    variables = {name: value for name, value in content.items() if not name.startswith("__")}
    return {key: leaf for name, value in variables.items() for key, leaf in _leaves(name, value)}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in the cells and fields of a variable."""
    array = value.toarray() if issparse(value) else np.asarray(value)
    if array.dtype.names:
        for field in array.dtype.names:
            yield from _leaves(f"{name}.{field}", array[field])
    elif array.dtype == object and array.size == 1:
        yield from _leaves(name, array.item())
    elif array.dtype == object and all(np.size(item) == 1 for item in array.flat):
        yield name, np.array([np.asarray(item).item() for item in array.flat]).reshape(array.shape)
    elif array.dtype == object:
        for i, item in enumerate(array.ravel()):
            yield from _leaves(f"{name}[{i}]", item)
    else:
        yield name, array
