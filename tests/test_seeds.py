"""Copies of stages and methods for several seeds."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from rglib.plan import acceleration
from rglib.plan.seeds import copies, including_seeds, is_given, name_for_seed, seeds_of
from rglib.plan.variants import expanded

ROOT = Path(__file__).parents[1]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
TRAINED = ["residual", "rg1", "deqgd", "rerg"]  # by the embedded default


def with_seeds(*seeds, **changes):
    return deepcopy(DEFAULT) | {"seeds": list(seeds)} | changes


def test_one_seed_changes_nothing():
    config = with_seeds(4)
    assert including_seeds(config) == config
    assert copies(config) == {method: (method, 4) for method in config["methods"]}


def test_a_further_seed_adds_and_leaves_the_first_as_it_is():
    config, before = with_seeds(4, 0), with_seeds(4, 0)
    made = including_seeds(config)
    assert config == before
    for section in ("stages", "methods"):
        assert made[section].items() >= config[section].items()
    assert set(made["stages"]) - set(config["stages"]) == {f"{s}.seed0" for s in TRAINED}
    assert made["stages"]["rerg.seed0"] == config["stages"]["rerg"] | {"seed": 0}
    assert made["methods"]["rerg.seed0"] == config["methods"]["rerg"] | {"stage": "rerg.seed0"}


def test_given_weights_are_the_same_for_every_seed():
    config = with_seeds(0, 1, 2)
    assert seeds_of("mtdeq", config) == [0] and seeds_of("rerg", config) == [0, 1, 2]
    assert "mtdeq.seed1" not in including_seeds(config)["methods"]
    assert [name for name in copies(config) if name.startswith("rerg")] == [
        "rerg",
        "rerg.seed1",
        "rerg.seed2",
    ]
    assert copies(config)["rerg.seed2"] == ("rerg", 2)


def test_weights_that_an_overlay_takes_away_are_trained_for_every_seed():
    config = with_seeds(0, 1, weights=DEFAULT["weights"] | {"mtdeq": None})
    assert not is_given("mtdeq", config) and seeds_of("mtdeq", config) == [0, 1]


def test_a_copy_starts_from_the_copies_of_what_is_trained_and_else_from_the_same():
    from_weights = including_seeds(with_seeds(0, 1))["stages"]
    assert from_weights["rerg.seed1"]["init"] == {"P": "mtdeq", "G": "start"}
    from_scratch = including_seeds(with_seeds(0, 1, init="scratch"))["stages"]
    assert from_scratch["rerg.seed1"]["init"] == {"P": "mtdeq.seed1", "G": "start.seed1"}
    assert from_scratch["denoiser.seed1"]["init"] == {"P": "orthogonal"}


def test_a_seed_of_the_stage_itself_stays():
    config = with_seeds(0, 1)
    config["stages"]["rerg"]["seed"] = 7
    assert including_seeds(config)["stages"]["rerg.seed1"]["seed"] == 7


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_ablations_and_the_accelerated_are_of_the_first_seed_alone(seeds):
    config = with_seeds(*seeds)
    made = expanded(config)
    assert made["methods"]["rerg_link_literal"]["stage"] == "rerg_link_literal"
    assert not [name for name in made["methods"] if name.startswith("rerg_link_literal.")]
    beside = {*config["ablations"], *acceleration.copies(config)}
    assert set(made["methods"]) == {*copies(config), *beside}


def test_no_configured_name_can_be_that_of_a_copy():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert "." not in schema["$defs"]["stage_name"]["pattern"].replace("(?!", "")
    assert name_for_seed("rerg", 1, with_seeds(0, 1)) == "rerg.seed1"
