"""Several seeds: copies of the trained stages and of the methods that use them.

The first of ``seeds`` has the plain names, so that another seed is added to a finished run without
training anything again. Stages whose weights are given are the same for every seed and have no
copies. `including_seeds` makes the copies, so that the rules that train and evaluate need not know
what a seed is. No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib.plan.roles import start_of

Config = Mapping[str, Any]


def name_for_seed(name: str, seed: int, config: Config) -> str:
    """What a stage or method is called for a seed; the dot keeps it apart from configured names."""
    return name if seed == config["seeds"][0] else f"{name}.seed{seed}"


def is_given(stage: str, config: Config) -> bool:
    """Whether the weights of a stage are given instead of trained."""
    return config["init"] == "weights" and config["weights"].get(stage) is not None


def seeds_of(method: str, config: Config) -> list[int]:
    """The seeds a method is evaluated for: the first alone where its network is given."""
    seeds = config["seeds"]
    return seeds[:1] if is_given(config["methods"][method]["stage"], config) else list(seeds)


def copies(config: Config) -> dict[str, tuple[str, int]]:
    """The method and seed behind the name of each copy, the methods of the first seed included."""
    return {
        name_for_seed(method, seed, config): (method, seed)
        for method in config["methods"]
        for seed in seeds_of(method, config)
    }


def including_seeds(config: Config) -> dict[str, Any]:
    """The configuration with copies of its trained stages and their methods for further seeds.

    A copy starts from the copies of its predecessors for the same seed.
    """
    stages, methods = dict(config["stages"]), dict(config["methods"])
    trained = [stage for stage in config["stages"] if not is_given(stage, config)]
    for seed in config["seeds"][1:]:
        for stage in trained:
            entry = config["stages"][stage]
            starts = {
                role: _start_for_seed(init, role, seed, config)
                for role, init in entry["init"].items()
            }
            stages[name_for_seed(stage, seed, config)] = {"seed": seed} | entry | {"init": starts}
        for method, entry in config["methods"].items():
            if entry["stage"] in trained:
                copied = {"stage": name_for_seed(entry["stage"], seed, config)}
                methods[name_for_seed(method, seed, config)] = entry | copied
    return {**config, "stages": stages, "methods": methods}


def _start_for_seed(init: str, role: str, seed: int, config: Config) -> str:
    stage, taken = start_of(init, role)
    if stage not in config["stages"] or is_given(stage, config):
        return init
    copied = name_for_seed(stage, seed, config)
    return copied if taken == role else f"{copied}.{taken}"
