"""All that is trained and evaluated: what is configured, for every seed, and the ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib import ablations, seeds


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the stages and methods of all its seeds and ablations.

    Ablations are made for the first seed alone.
    """
    return ablations.expanded(seeds.expanded(config))
