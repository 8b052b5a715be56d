"""All that is trained and evaluated: what is configured, for every seed, and copies of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib import ablations, acceleration, seeds


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with all stages and methods: of its seeds, ablations and `acceleration`.

    The latter two are made for the first seed alone.
    """
    made = ablations.expanded(seeds.expanded(config))
    return {**made, "methods": made["methods"] | acceleration.copies(config)}
