"""The plan of a configuration. The truth is the paper's figure of what is trained from what."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import FrozenInstanceError
from functools import cache
from pathlib import Path

import pytest
import yaml

from rglib.plan.ablations import overlaid
from rglib.plan.check import ConfigurationError
from rglib.plan.plan import Plan

ROOT = Path(__file__).parents[1]
TRAINED_FROM = {  # the stage and role that each network starts from, with this project's own starts
    "denoiser": {},
    "residual": {"P": "denoiser"},
    "pnpreg": {"P": "denoiser", "G": "residual"},
    "mtdeq": {"P": "denoiser"},
    "rg1": {"P": "mtdeq", "G": "pnpreg"},
    "start": {"G": "pnpreg"},
    "deqgd": {"G": "start"},
    "rerg": {"P": "mtdeq", "G": "start"},
}
NETWORKS = {
    "denoiser": ["P"],
    "residual": ["G"],
    "pnpreg": ["P", "G"],
    "mtdeq": ["P"],
    "rg1": ["P", "G"],
    "start": ["G"],
    "deqgd": ["G"],
    "rerg": ["P", "G"],
}
BY_DESCENT = ["pnpreg", "rg1", "deqgd", "rerg"]
OWN_PROBLEM = {"degradation": "examples.motion:MotionBlur", "lr": 0.004, "s_255": 2.55}


@cache
def default(name="config.yaml"):
    return yaml.safe_load((ROOT / name).read_text())


def planned(**changes):
    """The plan of the default configuration with an overlay."""
    return Plan.of(overlaid(deepcopy(default()), changes))


def from_scratch(**changes):
    return planned(init="scratch", **changes)


# --- a value --------------------------------------------------------------------------------------


def test_a_plan_is_a_value_that_leaves_its_configuration_as_it_is():
    config = deepcopy(default())
    plan = Plan.of(config)
    assert config == default() and plan == Plan.of(config)
    with pytest.raises(FrozenInstanceError):
        plan.config = {}


def test_planning_imports_no_pytorch():
    code = "import sys, rglib.plan.plan, rglib.records.made_with; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- stages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", TRAINED_FROM)
def test_a_stage_starts_from_the_networks_that_the_paper_says(stage):
    assert from_scratch().stages.predecessors(stage) == TRAINED_FROM[stage]


@pytest.mark.parametrize("stage", TRAINED_FROM)
def test_predecessors_come_first_and_each_once(stage):
    ordered = from_scratch().stages.with_predecessors([stage, stage])
    assert ordered[-1] == stage and len(ordered) == len(set(ordered))
    for place, one in enumerate(ordered):
        assert set(TRAINED_FROM[one].values()) <= set(ordered[:place])


def test_every_method_needs_every_stage_from_scratch_and_all_are_trained():
    plan = from_scratch()
    needed = plan.stages_of(plan.methods)
    assert needed[0] == "denoiser" and set(needed) == set(TRAINED_FROM)
    assert plan.stages.trained(needed) == needed and plan.stages.given(needed) == []


def test_given_stages_are_not_trained_and_start_from_nothing():
    plan = planned()
    needed = plan.stages_of(plan.methods)
    assert plan.stages.given(needed) == ["denoiser", "mtdeq", "pnpreg", "start"]
    assert plan.stages.trained(needed) == ["rg1", "deqgd", "rerg"]  # no residual: pnpreg is given
    assert plan.stages.predecessors("pnpreg") == {}
    assert plan.stages.predecessors("rerg") == {"P": "mtdeq", "G": "start"}


@pytest.mark.parametrize(("stage", "roles"), NETWORKS.items())
def test_what_a_stage_learns_is_what_it_writes(stage, roles):
    stages = from_scratch(run="r").stages
    assert stages.learned(stage) == roles
    assert stages.networks(stage) == {
        role: f"work/r/models/{stage}/{role}.safetensors" for role in roles
    }


def test_of_a_given_stage_there_are_the_networks_that_are_given():
    weights = default()["weights"] | {"pnpreg": {"P": {"file": "a.safetensors"}}}
    stages = Plan.of(deepcopy(default()) | {"weights": weights}).stages
    assert stages.learned("pnpreg") == ["P", "G"] and list(stages.networks("pnpreg")) == ["P"]


def test_the_parameters_of_a_stage_are_what_its_numbers_depend_on():
    parameters = from_scratch(seeds=[3], precision={"train": "bf16"}).stages.parameters("rerg")
    entry = default()["stages"]["rerg"]
    assert parameters == {
        "stage": "rerg",
        "learned": ["P", "G"],
        "starts": {"P": "mtdeq", "G": "start"},
        "entry": {key: entry[key] for key in ("objective", "options", "init", "budget")}
        | {"optimiser": entry["optimiser"]},
        "shared": {key: default()[key] for key in ("equilibrium", "training_problems")},
        "network": default()["network"],
        "precision": "bf16",
        "seed": 3,
    }


def test_a_stage_has_its_own_seed_precision_and_sections():
    own = {"seed": 5, "precision": "float32", "equilibrium": {"eta_gd": 0.1}}
    parameters = planned(stages={"rerg": own}).stages.parameters("rerg")
    assert (parameters["seed"], parameters["precision"]) == (5, "float32")
    assert parameters["shared"]["equilibrium"] == default()["equilibrium"] | {"eta_gd": 0.1}
    assert not {"seed", "precision", "log", "equilibrium"} & parameters["entry"].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"stages": {"rerg": {"log": {"every": 1}}}},
        {"stages": {"rg1": {"budget": {"steps": 1}}}},
        {"evaluation": {"iterations": 9}},
        {"run": "another"},
        {"threads": {"train": 8}},
    ],
)
def test_what_moves_no_number_of_a_stage_is_no_parameter(change):
    assert planned(**change).stages.parameters("rerg") == planned().stages.parameters("rerg")


def test_sections_count_for_the_stages_that_read_them_alone():
    change = {"equilibrium": {"eta_gd": 0.1}}
    before, after = from_scratch().stages, from_scratch(**change).stages
    moved = {s for s in TRAINED_FROM if before.parameters(s) != after.parameters(s)}
    assert moved == {"mtdeq", "rg1", "start", "deqgd", "rerg"}


def test_several_processes_train_a_stage_unless_it_judges_its_batch_as_a_whole():
    stages = planned(processes=4, stages={"rg1": {"equilibrium": {"per_image": False}}}).stages
    assert [stages.processes(name) for name in ("denoiser", "rerg", "rg1")] == [4, 4, 1]


# --- files ----------------------------------------------------------------------------------------


def test_a_training_reads_both_stores_and_where_its_networks_start():
    assert from_scratch(run="r").stages.inputs("deqgd") == {
        "train": "work/r/store/train/store.json",
        "validation": "work/r/store/validation/store.json",
        "start_G": "work/r/models/start/G.safetensors",
    }
    assert set(from_scratch().stages.inputs("denoiser")) == {"train", "validation"}


def test_a_G_may_start_from_the_P_of_a_stage_also_of_another_seed():
    change = {"stages": {"residual": {"init": {"G": "denoiser.P"}}}}
    stages = from_scratch(run="r", seeds=[0, 4], **change).stages
    assert stages.inputs("residual")["start_G"] == "work/r/models/denoiser/P.safetensors"
    assert stages.predecessors("residual") == {"P": "denoiser", "G": "denoiser"}
    assert stages.inputs("residual.seed4")["start_G"] == (
        "work/r/models/denoiser.seed4/P.safetensors"
    )


def test_a_method_restores_with_the_network_of_its_stage():
    plan = planned(run="r")
    assert plan.network("gauss") == "work/r/models/denoiser/P.safetensors"
    assert plan.network("rerg") == "work/r/models/rerg/G.safetensors"
    assert plan.network("rerg_no_ensemble") == plan.network("rerg")
    assert plan.stages.card("rg1") == "work/r/models/rg1/card.json"


def test_given_files_are_weights_and_cards_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.d").mkdir()
    for name in ("w.d/mine_P.safetensors", "w.d/mine.card.json"):
        (tmp_path / name).touch()
    sources = {"P": {"file": "w.d/mine_P.safetensors"}, "G": {"file": "gone_G.safetensors"}}
    stages = planned(
        weights={"denoiser": sources, "mtdeq": {"P": {"url": "u", "file": None}}}
    ).stages
    assert stages.given_files("denoiser") == ["w.d/mine_P.safetensors", "w.d/mine.card.json"]
    assert stages.given_files("mtdeq") == []


def test_trained_stages_that_weights_names_are_shipped_with_what_lies_on_the_way():
    weights = {"denoiser": None, "mtdeq": None, "pnpreg": None, "rerg": {"G": {"file": "x"}}}
    config = deepcopy(default()) | {"init": "scratch", "weights": weights, "run": "r"}
    stages = Plan.of(config).stages
    assert stages.shipped == ["denoiser", "mtdeq", "pnpreg", "rerg"]
    assert stages.on_the_way("pnpreg") == ["residual"]
    assert stages.on_the_way("rerg") == ["start"]
    models = "work/r/models"
    assert stages.to_ship("mtdeq") == [
        f"{models}/mtdeq/card.json",
        f"{models}/mtdeq/P.safetensors",
    ]
    assert stages.to_ship("rerg") == [f"{models}/rerg/card.json", f"{models}/rerg/G.safetensors"]


def test_a_stage_that_no_method_needs_is_not_shipped():
    methods = {name: default()["methods"][name] for name in ("gauss", "pnpreg")}
    config = deepcopy(default()) | {"init": "scratch", "methods": methods}
    assert {"mtdeq", "start"} <= set(config["weights"])
    assert Plan.of(config).stages.shipped == ["denoiser", "pnpreg"]


# --- methods --------------------------------------------------------------------------------------


def test_methods_by_descent_have_a_G_and_the_others_a_P():
    plan = planned()
    assert plan.by_descent == plan.some_by_descent() == BY_DESCENT
    for method in plan.methods:
        assert plan.role(method) == ("G" if method in BY_DESCENT else "P")


def test_the_settings_of_a_method_are_those_that_its_algorithm_reads():
    plan = planned(evaluation={"batch": 2})
    assert plan.settings("gauss") == {
        "evaluation": plan.config["evaluation"],
        "admm": default()["admm"],
    }
    assert plan.settings("rerg")["problems"] == default()["problems"]
    own = plan.settings("rerg_no_ensemble")["evaluation"]
    assert own == default()["evaluation"] | {"batch": 2, "ensemble": False}


def test_copies_are_of_the_seeds_of_what_is_trained():
    plan = planned(seeds=[0, 4])
    given, trained = ["gauss", "mtdeq", "pnpreg"], ["rg1", "deqgd", "rerg"]
    assert plan.seeds == {name: [0] for name in given} | {name: [0, 4] for name in trained}
    assert plan.copies.keys() == {*plan.methods, "rg1.seed4", "deqgd.seed4", "rerg.seed4"}
    assert plan.copied("rerg.seed4") == ("rerg", 4)
    assert plan.copied("rerg_seed") == ("rerg_seed", 0)
    assert plan.stages.inputs("rerg.seed4")["start_P"].endswith("/mtdeq/P.safetensors")
    assert plan.stages.parameters("rerg.seed4")["seed"] == 4


# --- problems and data ----------------------------------------------------------------------------


def test_a_problem_of_your_own_adds_a_table():
    plan = planned(problems={"mine": OWN_PROBLEM})
    assert (planned().tables, plan.tables) == ([1, 2], [1, 2, 3])
    assert plan.papers_problems == list(default()["problems"])


def test_data_sets_have_files_by_names_without_slashes():
    plan = planned(data={"train": ["embedded_train", "folder:my/photos"]})
    assert list(plan.datasets.values()) == [
        "embedded_train",
        "folder:my/photos",
        "embedded_validation",
    ]
    assert not [name for name in plan.datasets if "/" in name or ":" in name]


def test_smaller_crops_need_no_smaller_images_than_the_papers():
    assert planned().smallest_image == 128
    assert planned(stages={"rg1": {"budget": {"crop": 160}}}).smallest_image == 160


# --- ablations and studies ------------------------------------------------------------------------


def test_ablations_are_compared_with_their_methods():
    plan = planned()
    assert plan.compared == ["rerg", "rg1", "deqgd", *default()["ablations"]] == plan.all_compared()
    assert set(plan.compared) <= set(plan.every_method)


def test_an_ablation_of_a_method_that_is_not_configured_is_refused_by_name():
    config = deepcopy(default())
    del config["methods"]["rg1"]
    plan = Plan.of(config)
    assert "rg1_no_ensemble" not in plan.compared
    with pytest.raises(ConfigurationError) as caught:
        plan.all_compared()
    assert str(caught.value) == (
        "ablations.rg1_link_literal.method: 'rg1' is none of the methods: "
        "gauss, mtdeq, pnpreg, deqgd, rerg"
    )


def test_without_a_method_by_descent_what_needs_one_is_refused():
    config = deepcopy(default())
    config["methods"] = {name: config["methods"][name] for name in ("gauss", "mtdeq")}
    plan = Plan.of(config)
    assert plan.by_descent == plan.accelerated == []
    with pytest.raises(ConfigurationError, match="methods: none of them is by gradient_descent"):
        plan.some_by_descent()


def test_without_the_study_what_needs_it_is_refused():
    with pytest.raises(ConfigurationError, match="fixed_points: is missing; --configfile config/"):
        planned().some_studied()
    assert planned(**default("config/fixed_points.yaml")).some_studied()


def test_theorem_1_has_the_P_that_was_trained_with_a_G_and_else_the_configured_one():
    plan = planned()
    assert {method: plan.denoiser(method) for method in BY_DESCENT} == {
        "pnpreg": "mtdeq",  # given, and of it G alone
        "rg1": "rg1",
        "deqgd": "mtdeq",
        "rerg": "rerg",
    }


def test_what_is_tuned_is_tuned_with_the_configured_method():
    plan = planned()
    assert plan.tuned["completion90"] == "gradient_descent"
    assert plan.tuned["deblurring"] == "pnp_admm"
    assert "completion80" not in plan.tuned  # both of its settings are released
    assert plan.tuned_by("completion90") == "pnpreg" and plan.tuned_by("deblurring") == "gauss"
    assert plan.tuned_stages == ["pnpreg", "denoiser"]


def test_tuning_with_a_method_that_is_not_configured_is_refused():
    config = deepcopy(default())
    del config["methods"]["gauss"]
    plan = Plan.of(config)
    assert plan.tuned_stages == ["pnpreg"]
    with pytest.raises(ConfigurationError, match=r"^tuning\.methods\.pnp_admm: 'gauss' is none of"):
        plan.tuned_by("deblurring")


def test_each_method_by_descent_has_a_copy_for_each_solver():
    plan = planned()
    assert len(plan.accelerated) == 8 and set(plan.accelerated) <= set(plan.every_method)
    assert plan.evaluation("rerg-adam")["iterations"] == 1501


def test_the_study_of_fixed_points_is_there_where_it_is_configured():
    assert planned().studied == planned().before_studied == []
    overlay = default("config/fixed_points.yaml")
    plan = planned(**overlay)
    study = overlay["fixed_points"]
    assert len(plan.studied) == len(study["variants"]) * len(study["seeds"])
    assert study["stage"] not in plan.before_studied
    assert set(plan.before_studied) >= set(plan.stages.predecessors(plan.studied[0]).values())


def test_every_stage_that_a_variant_of_the_study_starts_from_is_among_those_to_train():
    plan = planned(**default("config/fixed_points_base.yaml"))
    assert {"score_short", "score_middle", "score_long"} <= set(
        plan.stages.trained(plan.every_stage)
    )
    assert "score_short" not in plan.stages_of(plan.methods)


def test_what_studies_look_at_is_planned_where_no_method_needs_it():
    overlay = default("config/fixed_points_base.yaml")
    overlay["fixed_points"]["gradients"]["stage"] = "score_long"
    overlay["fixed_points"]["variants"] = {"new": {"label": "new"}}
    config = overlaid(default(), overlay)
    plan = Plan.of(config | {"methods": {"deqgd": config["methods"]["deqgd"]}})
    assert plan.denoiser("deqgd") == "mtdeq"
    assert {"score_long", "mtdeq"} <= set(plan.every_stage)
    assert not {"score_long", "mtdeq"} & set(plan.stages_of(plan.methods))
