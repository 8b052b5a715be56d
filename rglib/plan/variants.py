"""All that is trained and evaluated: what is configured, for every seed, and copies of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib.plan import ablations, acceleration, fixed_point_variants, seeds


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with all stages and methods: of its seeds, ablations and studies.

    Ablations and `acceleration` are made for the first seed alone.
    """
    made = ablations.including_ablations(seeds.including_seeds(config))
    return {
        **made,
        "stages": made["stages"] | fixed_point_variants.copies(config),
        "methods": made["methods"] | acceleration.copies(config),
    }
