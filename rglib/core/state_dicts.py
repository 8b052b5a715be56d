"""State dicts of networks in files, in the forms that training programs leave them.

Only tensors and plain Python values are read: nothing in a file is executed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

SAVE = "save the state dict alone, torch.save(network.state_dict(), file)"
AGAIN = "it is cut off or damaged; copy or download it again"
ARCHIVE = "it is a zip archive of other files; unpack it"
EMA, TRAINED = "params_ema", "params"  # BasicSR's, which restores with the first as well
LISTED = 3  # names in a message


class WeightsError(Exception):
    """Weights that are not what the configuration says they are."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the one state dict in a file: safetensors, or what torch.save wrote of tensors.

    It may lie in dictionaries, as ``params`` or ``state_dict`` beside the state of an optimiser,
    which is passed over; of BasicSR's ``params_ema`` and ``params`` the first is taken. What kind
    of file it is tells its content, not its name.

    Raises:
        WeightsError: it is no such file, damaged, or holds none or several state dicts.
    """
    content = _content(path)
    found = dict(_state_dicts(content))
    if found.keys() == {EMA, TRAINED}:
        return found[EMA]
    if len(found) > 1:
        raise WeightsError(
            f"{path}: holds several state dicts, {some(found)}: save the one that is meant alone"
        )
    if not found:
        raise WeightsError(f"{path}: not a state dict of tensors, but {_what(content)}: {SAVE}")
    return next(iter(found.values()))


def named_as(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> Mapping[str, Tensor]:
    """Weights under the names expected, without a prefix as of a wrapper: ``module.``, ``net.``.

    Of a checkpoint of several networks it is the one with these names, or of several with them the
    one with these shapes; where no prefix leads to the names, the weights come back as they are.

    Raises:
        WeightsError: there are several such prefixes.
    """
    first = next(iter(expected), "")
    prefixes = {key.removesuffix(first) for key in weights if key.endswith(first)}
    fits = [
        prefix
        for prefix in sorted(prefixes)
        if prefix[-1:] in ("", ".") and all(prefix + name in weights for name in expected)
    ]
    if "" in fits or not fits:
        return weights
    if len(fits) > 1:
        fits = [prefix for prefix in fits if _same_shapes(expected, weights, prefix)] or fits
    if len(fits) > 1:
        raise WeightsError(
            f"{path}: holds several such networks, {some(fits)}: save the one that is meant alone"
        )
    (prefix,) = fits
    return {k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)}


def _same_shapes(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], prefix: str
) -> bool:
    return all(weights[prefix + name].shape == tensor.shape for name, tensor in expected.items())


def some(names: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(list(names)[:LISTED]) + more


def _state_dicts(content: object, name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The dictionaries of nothing but tensors, however deep, by the keys that lead there."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return
    if content and all(torch.is_tensor(value) for value in content.values()):
        yield name, dict(content)
        return
    for key, value in content.items():
        if not key.startswith("optim"):
            yield from _state_dicts(value, f"{name}.{key}".removeprefix("."))


def _what(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    others = [str(key) for key, value in content.items() if not torch.is_tensor(value)]
    beside = " beside tensors" if len(others) < len(content) else ""
    return f"{some(others)}{beside}" if content else "nothing"


def _content(path: Path) -> object:
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        return _read(path, start)
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise _unreadable(path, _reason(error)) from error


def _read(path: Path, start: bytes) -> object:
    if not start:
        raise _unreadable(path, "it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise _unreadable(path, "it is Git LFS's pointer to them; fetch them with `git lfs pull`")
    if start.lstrip().startswith(b"<"):
        raise _unreadable(path, "it is a web page, not the file that was to be downloaded")
    if start[8:9] == b"{":
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path) and not _of_pytorch(path):
        raise _unreadable(path, ARCHIVE)
    if not start.startswith((b"PK", b"\x80")):
        raise _unreadable(path, "it is neither safetensors nor a checkpoint of PyTorch")
    with path.open("rb") as file:  # of a path PyTorch goes by the ending
        return torch.load(file, map_location="cpu", weights_only=True)


def _of_pytorch(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _reason(error: Exception) -> str:
    """What PyTorch's message comes to: its own advises to run whatever is in the file."""
    if objects := re.search(r"GLOBAL (\S+)", str(error)):
        name = objects[1].rstrip(".,")
        return f"it holds a Python object, {name}, whose code would be executed; {SAVE}"
    if "TorchScript" in str(error):
        return f"it is TorchScript, which is code; {SAVE}"
    return AGAIN


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path}: cannot be read as weights: {reason}")


def mismatch(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """In what names and shapes weights differ from those expected; None where they agree."""
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    shapes = [
        f"{name} is {tuple(tensor.shape)} and not {tuple(expected[name].shape)}"
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    said: Sequence[tuple[str, list[str]]] = (
        ("", shapes),
        ("without ", missing),
        ("with ", unknown),
    )
    return "; ".join(word + some(names) for word, names in said if names) or None
