"""What is wrong with an entry of a configuration, in words. No PyTorch."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rglib.extensions import closest

Key = tuple[str | int, ...]  # the way from the top to an entry

_brief = reprlib.Repr()  # nested values are cut short, the names of files are not
_brief.maxstring = 200


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one entry of the configuration, and what is allowed there."""

    key: Key
    text: str

    def __str__(self) -> str:
        return f"{dotted(self.key)}: {self.text}"


def dotted(key: Key) -> str:
    """``stages.rg1.optimiser.lr``, ``network.widths[2]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".") or "the configuration"


def refused(key: Key, value: Any, allowed: str) -> Mistake:
    """A value that may not be there, and what may."""
    return Mistake(key, f"{_brief.repr(value)} is not allowed; must be {allowed}")


def unknown(key: Key, known: Iterable[str]) -> Mistake:
    """A key that is not there, and those that are."""
    return Mistake(key, f"unknown key{closest(str(key[-1]), known)} (allowed: {', '.join(known)})")
