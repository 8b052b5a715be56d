"""Units of the configuration: quantities named ``*_255`` are on 0..255, the library's on [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUFFIX = "_255"


def from_255(value: float) -> float:
    """What is on 0..255 on [0, 1]."""
    return value / 255


def on_unit_scale(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the configuration on [0, 1]: ``sigma_max_255: 50`` as ``sigma_max: 50 / 255``.

    What it holds under other names is left as it is, sections within it too.
    """
    return {
        key.removesuffix(SUFFIX): from_255(value) if key.endswith(SUFFIX) else value
        for key, value in section.items()
    }
