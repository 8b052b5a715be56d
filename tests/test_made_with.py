"""What code each job is made with: the choices of a configuration, in words of `code_hash`."""

from pathlib import Path

import pytest
from test_plan import OWN_PROBLEM, from_scratch, planned

from rglib.records.code_hash import SOURCE_ROOT, code_hash, reached
from rglib.records.made_with import Code, evaluating, networks, one_of, restoring, training

SCRIPTS = SOURCE_ROOT / "workflow/scripts"
DRUNET_P, DRUNET_G = (f"rglib.core.networks:NETWORKS[{role}]" for role in "PG")
NO_SOLVER = "rglib.core.fixed_point:SOLVERS[]"


@pytest.fixture(autouse=True)
def project(monkeypatch):
    monkeypatch.chdir(SOURCE_ROOT)


def code_of(plan):
    return Code(plan, lambda name: Path(SCRIPTS, f"{name}.py"))


def test_only_names_of_the_project_are_choices_of_a_dict():
    assert one_of("m:T", "b", "a", None, "b", "mine:Mine") == "m:T[a,b]"


def test_a_network_of_your_own_is_named_instead_of_a_drunet():
    own = planned(network={"G": "examples.dncnn:DnCNN"}).config
    assert networks("PG", planned().config) == ["rglib.core.networks:NETWORKS[G,P]"]
    assert networks("PG", own) == [DRUNET_P, "examples.dncnn:DnCNN"]


def test_gradient_descent_takes_a_solver_and_admm_none():
    config = planned().config
    assert restoring("pnp_admm", config, by="adam") == [
        "rglib.restoration.restorers:RESTORERS[pnp_admm]",
        NO_SOLVER,
        DRUNET_P,
    ]
    assert restoring("gradient_descent", config, by="adam") == [
        "rglib.restoration.restorers:RESTORERS[gradient_descent]",
        "rglib.core.fixed_point:SOLVERS[adam]",
        DRUNET_G,
    ]


def test_a_method_is_evaluated_by_its_own_solver():
    plan = planned()
    solvers = {name: evaluating(name, plan)[1] for name in ("gauss", "rerg", "rerg-adam")}
    assert solvers == {
        "gauss": NO_SOLVER,
        "rerg": "rglib.core.fixed_point:SOLVERS[semi_implicit]",  # the default's
        "rerg-adam": "rglib.core.fixed_point:SOLVERS[adam]",
    }


def test_a_stage_is_trained_by_its_objective_schedule_and_solver():
    plan = from_scratch()
    assert training("denoiser", plan) == [
        "rglib.training.factory:OBJECTIVES[denoising]",
        "rglib.training.factory:SCHEDULES[cosine]",
        DRUNET_P,
        NO_SOLVER,
        "rglib.training.objectives.equilibrium:BACKWARD_MAPS[]",
    ]
    assert training("rerg", plan, schedules=["step"])[:2] == [
        "rglib.training.factory:OBJECTIVES[equilibrium]",
        "rglib.training.factory:SCHEDULES[cosine,step]",
    ]
    assert "rglib.core.fixed_point:SOLVERS[semi_implicit]" in training("rerg", plan)
    another = from_scratch(stages={"rerg": {"equilibrium": {"solver": "adam", "keep": None}}})
    assert "rglib.core.fixed_point:SOLVERS[adam]" in training("rerg", another)


def test_an_objective_of_your_own_may_take_any_solver_of_the_project():
    own = {"objective": "examples.huber:HuberDescent", "options": {"delta": 0.1}}
    words = training("rerg", from_scratch(stages={"rerg": own}))
    assert words[-1] == own["objective"]
    assert not [word for word in words if "SOLVERS" in word or "BACKWARD_MAPS" in word]


def test_a_script_is_hashed_with_its_choices():
    words = f"workflow/scripts/symmetry.py {DRUNET_G}"
    assert code_of(planned()).script("symmetry", DRUNET_G) == {words: code_hash(words)}


MAKE, COLUMNS = "rglib.report.results:write_rows", "rglib.studies.symmetry:COLUMNS"


def test_a_result_is_made_with_all_that_trained_and_evaluated():
    code = code_of(planned())
    also = code.script("observations")
    params = code.result(
        MAKE, stages=["mtdeq", "rerg"], methods=["gauss"], also=[also], given={"columns": COLUMNS}
    )
    assert (params["make"], params["given"]) == (MAKE, {"columns": COLUMNS})
    made = params["code"]
    assert next(iter(made)) == f"workflow/scripts/report.py {MAKE} {COLUMNS}"
    scripts = {entries.split()[0].removeprefix("workflow/scripts/") for entries in made}
    assert scripts == {
        "report.py",
        "observations.py",
        "test_set.py",
        "dataset.py",
        "store.py",
        "evaluate.py",
        "train.py",
    }
    assert made.items() >= (code.training("rerg") | code.evaluation("gauss") | also).items()
    assert not made.keys() & code.training("mtdeq").keys()  # it is given


def test_a_result_of_given_networks_is_made_with_no_training():
    made = code_of(planned()).result(MAKE, stages=["mtdeq"])["code"]
    scripts = [entries.split()[0].removeprefix("workflow/scripts/") for entries in made]
    assert scripts == ["report.py", "test_set.py"]


def test_what_makes_a_result_and_what_it_is_given_are_in_its_hash():
    (words,) = code_of(planned()).script("report", MAKE, COLUMNS)
    assert {MAKE, COLUMNS, "rglib.report.job:Job"} <= reached(words)
    assert "rglib.report.results:write_table" not in reached(words)


def test_a_problem_of_your_own_is_its_definition_and_its_code_and_counts_in_every_result():
    plan = planned(problems={"mine": OWN_PROBLEM | {"options": {"length": 3, "sigma": 0.01}}})
    code = code_of(plan)
    digest = {OWN_PROBLEM["degradation"]: code_hash(OWN_PROBLEM["degradation"])}
    assert code.problems["completion80"] == {}
    assert code.problems["mine"] == {
        "degradation": OWN_PROBLEM["degradation"],
        "options": {"length": 3, "sigma": 0.01},
        "code": digest,
        "files": [],
    }
    assert code.result(MAKE, stages=[])["code"].items() >= digest.items()


def test_the_parameters_of_a_training_are_the_plans_and_its_code():
    plan = planned()
    params = code_of(plan).training_params("rerg")
    assert params.items() >= plan.stages.parameters("rerg").items()
    assert params["files"] == [] and params["code"] == code_of(plan).training("rerg")
    (words,) = params["code"]
    assert "rglib.training.objectives.equilibrium:Equilibrium" in reached(words)
