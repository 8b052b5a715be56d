"""Code of your own, named in the configuration: loaded, made, hashed, and refused in words."""

import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from test_check import DEFAULT, SCHEMA, edited, mistakes

from rglib.core.fixed_point import KeepableSolver, Outcome, StoppingRule, solve, solver_named
from rglib.core.maps import RegularizedGradient
from rglib.core.networks import build, for_inference, load_into, save_weights
from rglib.core.operators import Downsample
from rglib.core.problems import PROBLEMS, DataGradient, degradations, observe_image
from rglib.extensions import ExtensionError, make
from rglib.plan.ablations import overlaid
from rglib.plan.between import KEEPING
from rglib.plan.check import check
from rglib.plan.open_settings import targets, task_of
from rglib.plan.roles import learned_roles, sections_of
from rglib.records.code_hash import code_hash
from rglib.training import factory
from rglib.training.objectives.losses import Batch

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml"))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a module of your own into a fresh working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_is_made_of_its_options_and_what_it_has_a_place_for(own):
    own(
        """
        class Mine:
            def __init__(self, weight, equilibrium):
                self.made_of = weight, equilibrium
        """,
        name="folder/mine.py",
    )
    given = {"equilibrium": {"eta_gd": 1.0}, "training_problems": {}}
    mine = make("folder.mine:Mine", {"weight": 2}, given=given)
    assert mine.made_of == (2, {"eta_gd": 1.0})


@pytest.mark.parametrize(
    "reference, options, text",
    [
        ("nothing:Mine", {}, "there is no file nothing.py"),
        ("mine:Mien", {}, 'has no Mien; did you mean "Mine"? (it has: Mine)'),
        ("mine:NUMBER", {}, "has no NUMBER"),
        (
            "mine:Mine",
            {"wieght": 1},
            'has no option wieght; did you mean "weight"? (it has: weight)',
        ),
        ("mine:Mine", {}, "missing 1 required positional argument: 'weight'"),
        ("mine:Mine", {"weight": -1}, "ValueError: a weight is positive"),
        ("mine:Mine", {"weight": 1, "equilibrium": 1}, "has no option equilibrium"),
        ("broken:Mine", {}, "broken.py cannot be imported: ModuleNotFoundError"),
        ("json:Mine", {}, "give it another"),
    ],
)
def test_what_cannot_be_had_is_said(own, reference, options, text):
    own(
        """
        NUMBER = 1
        class Mine:
            def __init__(self, weight, equilibrium=None):
                if weight < 0:
                    raise ValueError("a weight is positive")
        """
    )
    own("import no_such_module", name="broken.py")
    own("class Mine: pass", name="json.py")
    with pytest.raises(ExtensionError) as error:
        make(reference, options, given={"equilibrium": {}})
    assert text in str(error.value)


def test_the_hash_of_your_own_code_counts_what_it_imports_of_the_project(own, tmp_path):
    def hashed(mine, beside):
        own(mine)
        own(beside, name="beside.py")
        return code_hash("mine")

    first = hashed("import beside\nimport torch\nx = 1", "y = 1")
    assert hashed("import beside\nimport torch\nx = 1  # why", "y = 1") == first
    assert hashed("import beside\nimport torch\nx = 2", "y = 1") != first
    assert hashed("import beside\nimport torch\nx = 1", "y = 2") != first
    with_rglib = hashed("from rglib.core.metrics import psnr\nx = psnr", "y = 1")
    assert with_rglib != hashed("from other.metrics import psnr\nx = psnr", "y = 1")
    assert code_hash("rglib.core.metrics") == code_hash("rglib.core.metrics", root=ROOT)


# --- the examples, through the configuration ------------------------------------------------------


def example(name):
    overlay = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text())
    return overlaid(
        overlaid(DEFAULT, yaml.safe_load((ROOT / "config/test.yaml").read_text())), overlay
    )


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_right(at_root, monkeypatch, name):
    monkeypatch.setattr("rglib.plan.between.isdir", lambda path: True)  # photographs of yours
    check(example(name), SCHEMA)


def test_an_objective_has_its_sections_and_with_a_large_delta_half_of_deqgds_loss(at_root, tiny):
    config = example("huber")
    stage = config["stages"]["huber"]
    assert learned_roles(stage) == ["G"]
    assert sections_of(stage) == ["equilibrium", "training_problems"]
    shared = {section: config[section] | stage.get(section, {}) for section in sections_of(stage)}
    x_hat = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    losses, slopes = [], []
    for name, options in (
        ("equilibrium", {"gradient_descent": 1.0}),
        (stage["objective"], {"delta_255": 1e6}),
    ):
        G = tiny("G")
        losses.append(factory.objective(name, options, shared)({"G": G}, Batch(x_hat, 0, 0)).total)
        slopes.append(torch.autograd.grad(losses[-1], list(G.parameters())))
    assert losses[1].item() == pytest.approx(losses[0].item() / 2)
    for ours, square in zip(slopes[1], slopes[0], strict=True):
        assert torch.allclose(2 * ours, square, rtol=1e-4, atol=1e-9)


def test_a_problem_has_the_observation_that_its_words_say(at_root):
    kinds = degradations(example("motion")["problems"])
    assert list(kinds)[:-1] == list(PROBLEMS)
    x = torch.rand(1, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    seen = observe_image(kinds["motion9"], x)
    expected = sum(x.roll(shift, dims=-1) for shift in range(-4, 5)) / 9
    noise = seen.y - expected
    assert noise.std().item() == pytest.approx(0.01, rel=0.1)
    assert (seen.problem.A(x) - expected).abs().max() < 1e-5


def test_a_problem_is_tuned_and_has_the_schedule_of_its_task(at_root):
    config = example("motion")
    assert task_of("motion9", config["problems"]["motion9"]) == "deblurring"
    assert targets(config)["motion9"] == "gradient_descent"


def test_a_network_is_built_saved_loaded_and_made_ready(at_root, tmp_path):
    network = example("dncnn")["network"]
    G = build("G", **network)
    x = torch.rand(1, 3, 17, 9)
    assert G(x).shape == x.shape and type(build("P", **network)).__name__ == "ProximalOperator"
    save_weights(tmp_path / "G.safetensors", G.state_dict())
    other = build("G", **network)
    load_into(other, tmp_path / "G.safetensors")
    assert torch.equal(for_inference(other, torch.device("cpu"))(x), G(x))


def test_a_solver_finds_the_map_estimate_of_a_linear_prior(at_root, linear_prior, in_double, dense):
    solver = solver_named(example("heavy_ball")["evaluation"]["solver"], lr=0.1)
    prior, A = linear_prior(90), in_double(Downsample.by(2, kernel="bicubic", height=6, width=5))
    x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    F = RegularizedGradient(prior.G, DataGradient(A, A(x)), 0.7)
    stop = StoppingRule(max_iterations=2000, tolerance=1e-16)
    found = solve(solver, F, torch.zeros_like(x), stop)
    assert found.share(Outcome.CONVERGED) == 1
    expected = prior.minimiser(dense(A, (3, 6, 5)), A(x), 0.7)
    torch.testing.assert_close(found.x.flatten(1), expected, atol=1e-6, rtol=0)


KEEP = {"batches": 4, "visits": 4, "first_steps": 2, "steps": 1}


def keeping(solver):
    own = {"solver": solver, "keep": KEEP}
    return edited(("stages", "rg1", "equilibrium"), own)


def test_a_solver_that_cannot_keep_its_iterates_is_refused_where_they_are_kept(at_root):
    solver = "examples.heavy_ball:HeavyBall"
    assert mistakes(keeping(solver)).startswith(
        f"stages.rg1.equilibrium.keep: is not allowed with {solver}, which has no restarted "
        "and no fields and no state (docs/extend.md); must be null"
    )


def test_a_solver_that_can_keep_its_iterates_may(own):
    own(
        """
        from rglib.core.fixed_point import Adam
        class Mine(Adam):
            pass
        """
    )
    check(keeping("mine:Mine"), SCHEMA)


def test_what_a_solver_must_have_to_keep_is_what_the_protocol_adds():
    has = {name for name in vars(KeepableSolver) if not name.startswith("_")}
    assert set(KEEPING) == has


HUBER = {
    "objective": "examples.huber:HuberDescent",
    "options": {"delta_255": 10},
    "init": {"G": "pnpreg"},
}


@pytest.mark.parametrize(
    "path, value, line",
    [
        (("stages", "rg1", "objective"), "huber", "stages.rg1.objective: 'huber' is not allowed"),
        (
            ("stages", "rg1", "objective"),
            "examples.hubre:HuberDescent",
            "stages.rg1.objective: there is no file examples/hubre.py",
        ),
        (
            ("stages", "deqgd"),
            DEFAULT["stages"]["deqgd"] | HUBER | {"options": {"delta": 1}},
            "stages.deqgd.options: examples.huber:HuberDescent has no option delta; did you mean",
        ),
        (
            ("stages", "deqgd"),
            DEFAULT["stages"]["deqgd"] | HUBER | {"init": {"P": "mtdeq"}},
            "stages.deqgd.init.G: is missing",
        ),
        (
            ("stages", "deqgd", "objective"),
            "examples.motion:MotionBlur",
            "stages.deqgd.objective: examples.motion:MotionBlur must have `learns`",
        ),
        (
            ("problems", "motion9"),
            {"lr": 1.0, "s_255": 1.0, "source": {"lr": "ours", "s_255": "ours"}},
            "problems.motion9: unknown key",
        ),
        (
            ("problems", "motion9"),
            example("motion")["problems"]["motion9"] | {"degradation": "examples.motion:Motion"},
            'has no Motion; did you mean "MotionBlur"?',
        ),
        (
            ("problems", "motion9"),
            example("motion")["problems"]["motion9"] | {"options": {}},
            "problems.motion9.options: examples.motion:MotionBlur refuses its options",
        ),
        (
            ("problems", "motion9"),
            example("motion")["problems"]["motion9"] | {"options": {"length": 9, "sigma": 2.55}},
            "examples.motion:MotionBlur must have a `sigma` on [0, 1]; it is 2.55",
        ),
        (
            ("problems", "motion9"),
            example("motion")["problems"]["motion9"]
            | {"degradation": "examples.heavy_ball:HeavyBall", "options": {}},
            "examples.heavy_ball:HeavyBall has no task and no sigma and no smallest and no crop",
        ),
        (
            ("evaluation", "solver"),
            "examples.motion:MotionBlur",
            "evaluation.solver: examples.motion:MotionBlur has no init and no step and no select",
        ),
        (("evaluation", "solver"), "newton", "must be one of adam, semi_implicit, or module:Class"),
        (
            ("stages", "rg1", "equilibrium"),
            {"solver": "examples.heavy_ball:Heavy"},
            "stages.rg1.equilibrium.solver: ",
        ),
        (("network", "G"), "dncnn", "network.G: 'dncnn' is not allowed; must be module:Class"),
        (("network", "G"), "examples.dncnn:Net", "has no Net (it has: StackedGradient)"),
    ],
)
def test_a_mistake_is_found_before_anything_runs(at_root, path, value, line):
    assert line in mistakes(edited(path, value))
