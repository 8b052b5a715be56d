"""The accelerated solver beside the paper's: copies of the methods by gradient descent.

Each of them has a copy for each solver, whose evaluation says which, how many steps, and what part
of each test image. `copies` makes them, so that the rule that evaluates need not know what they
are. No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib.plan.ablations import overlaid
from rglib.plan.names import copy_name

Config = Mapping[str, Any]

STARTS = {"adam": "released", "semi_implicit": "interpolated"}  # each solver has its own
SOLVERS = tuple(STARTS)


def copies(config: Config) -> dict[str, dict[str, Any]]:
    """The copies of the configured methods, by name; those of the first seed alone."""
    plan = config["acceleration"]
    return {
        copy_name(name, solver): overlaid(
            method,
            {
                "evaluation": {
                    "solver": solver,
                    "iterations": plan["steps"][solver] + 1,  # the starting point among them
                    "tolerance": None,  # to the last step: a curve has every call
                    "average": solver == "semi_implicit",  # which goes round its zero
                    "x0": STARTS[solver],
                    "crop": plan["crop"],
                }
            },
        )
        for name, method in config["methods"].items()
        if method["algorithm"] == "gradient_descent"
        for solver in SOLVERS
    }
