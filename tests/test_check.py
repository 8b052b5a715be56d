import math
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from datetime import date
from numbers import Real
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from rglib.plan.ablations import without_nulls
from rglib.plan.check import ConfigurationError, check
from rglib.plan.mistakes import dotted
from rglib.plan.roles import learned_roles
from rglib.plan.stages import Stages
from rglib.plan.variants import expanded
from rglib.report.evaluations import paper_tables
from rglib.training import factory
from rglib.training.objectives.equilibrium import Equilibrium

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
OVERLAYS = [None, *sorted((ROOT / "config").glob("*.yaml"))]
UNDER = {  # overlays of overlays
    "control": ROOT / "config/overnight.yaml",
    "fixed_points_deep": ROOT / "config/fixed_points_base.yaml",
    "fixed_points_small": ROOT / "config/fixed_points_base.yaml",
    "fixed_points_wide": ROOT / "config/fixed_points_base.yaml",
    "gpu_quarter": ROOT / "config/overnight.yaml",
    "three_seeds": ROOT / "config/overnight.yaml",
}
GONE = object()


def merged(overlay=None):
    """The configuration as Snakemake sees it."""
    config = load_configfile(ROOT / "config.yaml")
    if overlay is not None:
        if overlay.stem in UNDER:
            update_config(config, load_configfile(UNDER[overlay.stem]))
        update_config(config, load_configfile(overlay))
    return without_nulls(config)


DEFAULT = {**merged(), "init": "scratch"}


def edited(key, value, config=DEFAULT):
    """The configuration with one entry set, or gone."""
    config = deepcopy(config)
    inner = config
    for part in key[:-1]:
        inner = inner[part]
    if value is GONE:
        del inner[key[-1]]
    else:
        inner[key[-1]] = value
    return config


def mistakes(config):
    with pytest.raises(ConfigurationError) as caught:
        check(config, SCHEMA)
    return str(caught.value)


def at(path):
    """ "a.b.0" as a key; the ids of problems have dots of their own."""
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))


@pytest.fixture
def with_weights(tmp_path, monkeypatch):
    """A working directory with the files that the default's weights name."""
    monkeypatch.chdir(tmp_path)
    config = merged()
    for sources in config["weights"].values():
        for source in sources.values():
            Path(source["file"]).parent.mkdir(exist_ok=True)
            Path(source["file"]).touch()
    return config


# --- what is shipped ------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path and path.stem)
def test_shipped_configurations_are_valid(overlay, monkeypatch):
    monkeypatch.chdir(ROOT)
    missing = (
        overlay is not None and overlay.stem == "published_weights"
    )  # of files that others have
    said = pytest.raises(ConfigurationError, match="there is no file") if missing else nullcontext()
    with said as refused:
        check(merged(overlay), SCHEMA)
    if missing:
        assert all("there is no file" in line for line in str(refused.value).splitlines())


def test_test_scale_trains_every_stage_without_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(merged(ROOT / "config/test.yaml"), SCHEMA)


@pytest.mark.parametrize("stage", ["pnpreg", "mtdeq", "rg1", "deqgd", "rerg"])
def test_the_control_trains_as_the_paper_does_but_for_the_updates(stage):
    def recipe(overlay):
        found = Stages(expanded(merged(ROOT / f"config/{overlay}.yaml"))).parameters(stage)
        entry = {key: found["entry"][key] for key in ("objective", "options", "init")}
        clipped = {key: found["entry"]["optimiser"].get(key) for key in ("muon", "clip", "ema")}
        return entry, clipped, found["shared"]

    assert recipe("control") == recipe("paper")


def subschemas(schema):
    if isinstance(schema, Mapping):
        yield schema
        for key, inner in schema.items():
            if key not in ("enum", "const", "required"):
                yield from subschemas(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from subschemas(inner)


def test_the_schema_describes_every_key():
    Draft202012Validator.check_schema(SCHEMA)
    rules = {"pattern", "minItems", "maxItems", "minLength", "minProperties", "oneOf", "anyOf"}
    for schema in subschemas(SCHEMA):
        if rules & set(schema):
            assert "title" in schema, schema
        if schema.get("additionalProperties") is False:
            for name, inner in schema["properties"].items():
                assert inner.get("description", "").endswith("."), (name, inner)


def test_the_problems_are_those_of_the_paper():
    assert set(SCHEMA["properties"]["problems"]["properties"]) == set(paper_tables().problem_id)


@pytest.mark.parametrize("name", DEFAULT["stages"])
def test_learned_roles_are_the_objectives(name):
    entry = DEFAULT["stages"][name]
    objective = factory.objective(entry["objective"], entry["options"], DEFAULT)
    assert learned_roles(entry) == list(objective.learns)


@pytest.mark.parametrize("link", [None, 0.1])
@pytest.mark.parametrize("forward_backward", [None, 1.0])
@pytest.mark.parametrize("gradient_descent", [None, 1.0])
def test_learned_roles_at_fixed_points(link, forward_backward, gradient_descent):
    options = {
        "link": link,
        "forward_backward": forward_backward,
        "gradient_descent": gradient_descent,
    }
    entry = {"objective": "equilibrium", "options": options}
    assert learned_roles(entry) == list(Equilibrium(**options).learns)


# --- one mistake, one line ------------------------------------------------------------------------

LINES = [
    ("stages.rg1.optimiser.lr", -1, "-1 is not allowed; must be greater than 0"),
    ("stages.rg1.optimiser.lr", float("nan"), "nan is not allowed; must be a number"),
    ("stages.rg1.optimiser.ema", 1, "1 is not allowed; must be less than 1"),
    ("stages.rg1.optimiser.clip", "no", "'no' is not allowed; must be a number or null"),
    ("stages.rg1.budget.steps", -5, "-5 is not allowed; must be at least 1"),
    ("stages.rg1.budget.steps", 100.0, "100.0 is not allowed; must be a whole number"),
    ("stages.rg1.budget.steps", True, "True is not allowed; must be a whole number"),
    ("stages.rg1.budget.minutes", 0, "0 is not allowed; must be greater than 0"),
    (
        "stages.rg1.budget",
        {"steps": 9, "minutes": 1, "batch": 8, "crop": 64},
        "a mapping with batch, crop and either steps or minutes",
    ),
    ("stages.rg1.budget", {"batch": 8, "crop": 64}, "either steps or minutes"),
    (
        "stages.pnpreg.budget.crop",
        16,
        "16 is not allowed; must be at least 32, or log.monitor null",
    ),
    ("stages.rg1.compile", True, "true is not allowed with a monitor; must be false, or"),
    ("stages.rg1.budget.crop", 60, "60 is not allowed; must be a multiple of 8"),
    ("stages.rg1.budget.crop", 24, "24 is not allowed; must be at least 32"),
    ("stages.denoiser.budget.crop", 8, "8 is not allowed; must be at least 16"),
    ("stages.rg1.optimiser.schedule.cosine.warmup", -1, "must be at least 0"),
    ("stages.rg1.optimiser.schedule", {}, "must be a mapping with either cosine or step"),
    ("stages.rg1.optimiser.schedule", "cosine", "'cosine' is not allowed; must be a mapping"),
    (
        "stages.rg1.optimiser.schedule",
        {"cosine": {"warmup": 1}, "step": {"every": 1, "gamma": 1}},
        "must be a mapping with either cosine or step",
    ),
    ("stages.rg1.log.monitor", 15, "15 is not allowed; must be a multiple of log.every, 4"),
    ("stages.rg1.objective", "deq", "must be one of denoising, residual_start, score_start,"),
    ("stages.denoiser.options.sigma_max_255", 256, "256 is not allowed; must be at most 255"),
    ("stages.residual.options.degraded", 1.5, "1.5 is not allowed; must be at most 1"),
    ("stages.pnpreg.options.probe_noise_255", None, "None is not allowed; must be a number"),
    ("stages.pnpreg.options.link", None, "None is not allowed; must be a number"),
    ("stages.rg1.options", {"link": None}, "at least one of link, forward_backward and"),
    ("stages.rg1.options", {}, "at least one of link, forward_backward and gradient_descent"),
    ("stages.rg1.init.P", "mtdec", 'did you mean "mtdeq"?'),
    ("stages.rg1.init.G", "mtdeq", "must be a stage that learns G or an initialisation: default"),
    ("stages.rg1.init.G", "mtdqe.P", "is not allowed; must be a stage that learns G"),
    ("stages.rg1.init.P", "mtdeq.P", "must be a stage that learns P or an initialisation"),
    ("stages.rg1.init.P", "pnpreg.G", "must be a stage that learns P or an initialisation"),
    ("stages.rg1.init.G", GONE, "is missing; must be a stage that learns G or an initialisation"),
    ("stages.mtdeq.init.G", "pnpreg", "is not allowed; mtdeq needs only P"),
    ("stages.rg1.init", ["mtdeq"], "['mtdeq'] is not allowed; must be a mapping"),
    ("stages.default", DEFAULT["stages"]["rg1"], "other than default and orthogonal"),
    ("stages.RG-1", DEFAULT["stages"]["rg1"], "'RG-1' is not allowed; must be a name of small"),
    ("stages", {}, "{} is not allowed; must be a mapping with at least one stage"),
    ("methods", {}, "{} is not allowed; must be a mapping with at least one method"),
    ("methods.rg1.stage", "rgl", "gradient_descent needs: residual, pnpreg, rg1,"),
    ("methods.rg1.stage", "mtdeq", "'mtdeq' is not allowed; must be a stage that learns G"),
    ("methods.gauss.stage", "residual", "must be a stage that learns P, which pnp_admm needs"),
    ("methods.gauss.algorithm", "admm", "must be one of gradient_descent, pnp_admm"),
    ("methods.a/b", DEFAULT["methods"]["rg1"], "must be a name of small letters, digits and _"),
    ("methods.rerg.label", "Gauss", "must be a label that no other method has, as gauss does"),
    ("methods.gauss.label", "", "'' is not allowed; must be text that is not empty"),
    ("run", "a/b", "'a/b' is not allowed; must be a simple name of letters"),
    ("run", "..", "'..' is not allowed"),
    ("run", "data", "other than data and downloads"),
    ("run", "test\n", "must be a simple name"),
    ("run", date(2024, 2, 29), "is not allowed; must be text"),
    ("run", 7, "7 is not allowed; must be text"),
    ("seeds.0", -1, "-1 is not allowed; must be at least 0"),
    ("seeds", [], "[] is not allowed; must be a list of at least one whole number, each once"),
    ("seeds", [1, 1], "[1, 1] is not allowed; must be a list without repetitions"),
    ("device", "gpu", "'gpu' is not allowed; must be one of auto, cpu, cuda"),
    ("precision.train", "float16", "must be one of auto, float32, bfloat16"),
    ("init", "none", "must be one of weights, scratch"),
    ("threads", "{'train': 2}", "is not allowed; must be a mapping"),
    ("threads.train", 0, "0 is not allowed; must be at least 1"),
    ("mirrors", "a folder", "'a folder' is not allowed; must be a list"),
    ("network.widths", [16, 32, 64], "must be a list of four whole numbers"),
    ("network.blocks", 0, "0 is not allowed; must be at least 1"),
    ("equilibrium.eta_fb", 2, "2 is not allowed; must be less than 2"),
    ("equilibrium.tolerance", "1e-7", "must be a number, without quotes, and with dot and sign"),
    ("equilibrium.max_iterations", 0, "0 is not allowed; must be at least 1"),
    ("equilibrium.link_variance", "eta", "must be one of theorem, literal"),
    ("training_problems.sigma_max_255", 300, "300 is not allowed; must be at most 255"),
    ("training_problems.sigma_min_255", 51, "51 is not allowed; must be at most sigma_max_255, 12"),
    ("data.test", "folder:a\nb", "must be a path that can be printed"),
    ("equilibrium.backward_map", "implicit", "must be one of gradient, semi_implicit"),
    ("training_problems.factors", [], "must be a list of at least one whole number"),
    ("training_problems.factors", [2, 2], "must be a list without repetitions"),
    ("equilibrium.per_image", "yes", "'yes' is not allowed; must be true or false"),
    ("training_problems.drop_max", -0.1, "-0.1 is not allowed; must be at least 0"),
    ("problems", {}, "must be a mapping with at least one of the twelve problems"),
    ("problems.completion80.lr", 0, "0 is not allowed; must be greater than 0"),
    ("problems.completion80.s_255", 0, "0 is not allowed; must be greater than 0"),
    ("problems.completion8", {}, 'did you mean "completion80"?'),
    ("evaluation.iterations", 0, "0 is not allowed; must be at least 1"),
    ("admm.completion.sigma_first_255", 256, "256 is not allowed; must be at most 255"),
    ("admm.sigma_min_255", 0, "0 is not allowed; must be greater than 0"),
    ("data.train", [], "must be a list of at least one data set"),
    ("data.test", "Set5", 'did you mean "set5"?'),
    ("tuning.data", "set5", "'set5' is not allowed; must be a data set that is not data.test or"),
    ("tuning.data", "bsds500", 'did you mean "bsds500_val"?'),
    (
        "tuning.methods.pnp_admm",
        "rg1",
        "must be a method with algorithm pnp_admm: gauss, mtdeq",
    ),
    ("tuning.gradient_descent.lr", [], "must be a list of at least one value to try, each once"),
    (
        "problems.completion80.source.lr",
        "mine",
        "must be one of paper, released, noise, tuned",
    ),
    ("data.test", "folder:", "'folder:' is not allowed; must be one of set5, bsds500_train"),
    ("data.test", "embedded_train", "must be a data set that is not in data.train"),
    ("data.test_stand_in", "embedded_validation", "must be a data set that is not in data.train"),
    ("weights.denoisr", {"P": {"file": "f"}}, 'unknown key; did you mean "denoiser"?'),
    ("weights.denoiser.G", {"file": "f"}, "is not allowed; denoiser learns only P"),
    ("weights.denoiser", {}, "must be a mapping with P, G or both"),
    ("weights.denoiser.P", {}, "must be a mapping with either file or url"),
    ("weights.denoiser.P", {"file": "f", "url": "https://a.org/f"}, "either file or url"),
    ("weights.denoiser.P.url", "ftp://a.org/f", "must be an address http(s)://"),
    ("weights.denoiser.P.sha256", "435EF1", "must be 64 hexadecimal digits"),
]


@pytest.mark.parametrize("path, value, text", LINES)
def test_a_mistake_names_its_key_and_what_is_allowed(path, value, text):
    key = at(path)
    lines = [line for line in mistakes(edited(key, value)).split("\n") if text in line]
    assert lines and all(line.startswith(f"{dotted(key)}: ") for line in lines)


def test_two_spellings_of_a_folder_are_one_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "alias").symlink_to("mine")
    config = edited(("data", "train"), ["folder:mine"])
    for key, id in [("test", "folder:mine/"), ("test", "folder:alias")]:
        said = mistakes(edited(("data", key), id, config))
        assert "must be a data set that is not in data.train" in said
    said = mistakes(edited(("data", "validation"), [f"folder:{tmp_path}/mine"], config))
    assert said.startswith("data.validation[0]:") and "not in data.train" in said
    tuned = edited(("data", "test"), "folder:other")
    (tmp_path / "other").mkdir()
    said = mistakes(edited(("tuning", "data"), "folder:./other", tuned))
    assert said.startswith("tuning.data:") and "not data.test" in said


@pytest.mark.parametrize(
    "path, value, line",
    [
        (
            "stages.rg1.training_problems",
            {"sigma_min_255": 0, "noise": "log_uniform"},
            "stages.rg1.training_problems.sigma_min_255: 0 is not allowed with noise: log_uniform",
        ),
        (
            "stages.rg1.training_problems",
            {"sigma_min_255": 60},
            "stages.rg1.training_problems.sigma_min_255: 60 is not allowed; must be at most",
        ),
        ("equilibrium.keep", {"batches": 4}, "equilibrium.keep.visits: is missing; it has"),
        ("network.widths.2", 0, "network.widths[2]: 0 is not allowed; must be at least 1"),
        ("data.train.0", "bsds500", "data.train[0]: 'bsds500' is not allowed; must be one of"),
        ("data.validation.0", "embedded_train", "data.validation[0]: 'embedded_train' is not"),
        ("mirrors", [3], "mirrors[0]: 3 is not allowed; must be text"),
    ],
)
def test_items_of_lists_are_named_by_their_place(path, value, line):
    assert mistakes(edited(at(path), value)).startswith(line)


@pytest.mark.parametrize(
    "path, suggestion",
    [
        ("sed", "seeds"),
        ("network.block", "blocks"),
        ("data.tests", "test"),
        ("equilibrium.max_iteration", "max_iterations"),
        ("stages.rg1.optimizer", "optimiser"),
        ("stages.rg1.optimiser.learning_rate", None),
        ("stages.rg1.options.links", "link"),
        ("stages.denoiser.options.sigma_max", "sigma_max_255"),
        ("stages.rg1.optimiser.schedule.cosin", "cosine"),
        ("stages.rg1.optimiser.schedule.cosine.warm_up", "warmup"),
        ("stages.rg1.init.p", None),
        ("methods.rg1.labels", "label"),
        ("problems.completion80.s255", "s_255"),
        ("admm.deblur", "deblurring"),
        ("admm.completion.iteration", "iterations"),
        ("weights.denoiser.P.sha", "sha256"),
    ],
)
def test_unknown_keys_get_a_suggestion_at_every_level(path, suggestion):
    line = mistakes(edited(at(path), 1))
    hint = f'; did you mean "{suggestion}"?' if suggestion else ""
    assert line.startswith(f"{path}: unknown key{hint} (allowed: ")


def test_every_mistake_has_its_line():
    config = edited(at("network.blocks"), 0)
    config["sed"] = config.pop("seeds")
    config["methods"]["rg1"]["stage"] = "rgl"
    config["data"]["validation"] = config["data"]["train"]
    lines = mistakes(config).split("\n")
    keys = ["network.blocks", "sed", "seeds", "methods.rg1.stage", "data.validation[0]"]
    assert [line.split(":")[0] for line in lines] == keys


@pytest.mark.parametrize("key", [1, True, None, 1.5, date(2024, 2, 29)])
@pytest.mark.parametrize("path", ["network", "methods", "stages.rg1.options", "weights"])
def test_keys_that_yaml_does_not_read_as_text(path, key):
    config = edited((*at(path), key), 1)
    assert mistakes(config).startswith(f"{path}: {{")
    assert "keys are text" in mistakes(config)


def test_a_configuration_that_is_none():
    assert mistakes([]) == "the configuration: [] is not allowed; must be a mapping"
    assert "the configuration: " in mistakes({1: 2})
    assert "network: is missing" in mistakes({})


def test_numbers_as_yaml_and_command_line_read_them():
    check(edited(("seeds",), [3, 4]), SCHEMA)
    check(edited(at("stages.rg1.optimiser.lr"), yaml.safe_load("1.0e-5")), SCHEMA)
    assert "1.0e-5" in mistakes(edited(at("stages.rg1.optimiser.lr"), yaml.safe_load("1e-5")))


def test_null_takes_away_what_an_overlay_inherits():
    for path, value in [
        ("stages.rg1.optimiser.schedule", {"cosine": None, "step": {"every": 9, "gamma": 0.5}}),
        ("stages.deqgd.options", {"link": None, "gradient_descent": 1}),
        ("weights.mtdeq.P", {"file": None, "url": "https://a.org/P.pth", "sha256": "0" * 64}),
    ]:
        check(edited(at(path), value), SCHEMA)


def test_folders_are_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = edited(("data", "train"), ["folder:my photos", "wed"])
    assert mistakes(config) == "data.train[0]: there is no folder my photos"
    Path("my photos").mkdir()
    check(config, SCHEMA)


def test_a_subset_of_methods_and_problems():
    config = edited(("methods",), {"mine_2": DEFAULT["methods"]["rg1"]})
    config["problems"] = {"completion80": config["problems"]["completion80"]}
    check(config, SCHEMA)


# --- between stages -------------------------------------------------------------------------------


def test_stages_in_a_circle():
    config = edited(at("stages.denoiser.init.P"), "mtdeq")
    line = mistakes(config)
    assert "init: stages start from one another in a circle" in line
    assert "denoiser" in line and "mtdeq" in line


def test_a_stage_that_starts_from_itself():
    assert "rg1 -> rg1" in mistakes(edited(at("stages.rg1.init.P"), "rg1"))


def test_given_stages_close_no_circle(with_weights):
    check(edited(at("stages.denoiser.init.P"), "mtdeq", with_weights), SCHEMA)


def test_a_file_of_weights_that_is_not_there(with_weights):
    Path("weights/mtdeq_P.safetensors").unlink()
    line = mistakes(with_weights)
    assert line.startswith("weights.mtdeq.P.file: there is no file weights/mtdeq_P.safetensors")
    assert "init: scratch" in line
    check({**with_weights, "init": "scratch"}, SCHEMA)


def test_given_weights_lack_a_network_that_others_need(with_weights):
    only_P = {"P": {"file": "weights/mtdeq_P.safetensors"}}
    lines = mistakes(edited(at("weights.pnpreg"), only_P, with_weights)).split("\n")
    assert all(line.startswith("weights.pnpreg.G: is missing; ") for line in lines)
    users = {"methods.pnpreg", "stages.rg1.init.G"}
    assert {line.split("; ")[1].split(" needs")[0] for line in lines} == users


def test_given_weights_lack_the_network_that_theorem_1_needs(with_weights):
    line = mistakes(edited(at("bound.denoiser"), "pnpreg", with_weights))
    assert line.startswith("weights.pnpreg.P: is missing; bound.denoiser needs it")


def test_a_network_of_given_weights_that_nobody_needs_may_lack(with_weights):
    assert set(with_weights["weights"]["pnpreg"]) == {"G"}  # of the two that the stage learns
    check(with_weights, SCHEMA)


# --- any mistake at all ---------------------------------------------------------------------------


def keys_of(config, key=()):
    """Every entry, mappings and items of lists among them."""
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for name, value in items:
        yield (*key, name)
        if isinstance(value, Mapping | list):
            yield from keys_of(value, (*key, name))


def value_at(key):
    value = DEFAULT
    for part in key:
        value = value[part]
    return value


KEYS = list(keys_of(DEFAULT))
MAPPINGS = [(), *(key for key in KEYS if isinstance(value_at(key), Mapping))]
OPTIONAL_UNDER = {("weights",), ("problems",), ("methods",), ("stages",)}
REQUIRED = [
    key
    for key in KEYS
    if not isinstance(key[-1], int)
    and key[:-1] not in OPTIONAL_UNDER
    and key[0] not in ("weights", "ablations")
    and key[-1] not in ("cosine", "link", "forward_backward", "gradient_descent")
    and key[-2:] != ("budget", "steps")  # minutes will do
]
WRONG = [True, 3, float("nan"), float("inf"), "no such thing", [], [[]], {"a": 1}, {2: 3}]
WRONG += [date(2024, 2, 29), b"bytes", ("a", "tuple"), {"a", "set"}, object()]


def kind(value):
    """No entry of the default allows values of two kinds, but for null; NaN is of no kind."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    kinds = (bool, Real, str, list, Mapping, object)
    return next(kind for kind in kinds if isinstance(value, kind))


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(KEYS), wrong=st.sampled_from(WRONG))
def test_fuzz_wrong_types(key, wrong):
    assume(kind(wrong) is not kind(value_at(key)) and value_at(key) is not None)
    assert f"{dotted(key)}: " in mistakes(edited(key, wrong))


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(REQUIRED))
def test_fuzz_missing_keys(key):
    assert f"{dotted(key)}: is missing" in mistakes(edited(key, GONE))


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(MAPPINGS), name=st.text(), value=st.sampled_from([1, None, {}, "a"]))
def test_fuzz_unknown_keys(key, name, value):
    unknown = (*key, f"{name}!")
    assert f"{dotted(unknown)}: " in mistakes(edited(unknown, value))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(KEYS), value=anything | st.sampled_from([value_at(k) for k in KEYS]))
def test_fuzz_nothing_else_is_raised(key, value):
    try:
        check(edited(key, value), SCHEMA)
    except ConfigurationError as error:
        assert str(error)


@settings(max_examples=50, deadline=None)
@given(config=anything)
def test_fuzz_whole_configurations(config):
    mistakes(config)


# --- what an overlay takes away -------------------------------------------------------------------


def test_null_takes_a_method_or_a_problem_away():
    config = edited(at("methods.gauss"), None, edited(("problems", "deblur_s1.6"), None))
    left = without_nulls(config)
    check(left, SCHEMA)
    assert set(DEFAULT["methods"]) - set(left["methods"]) == {"gauss"}
    assert set(DEFAULT["problems"]) - set(left["problems"]) == {"deblur_s1.6"}


@pytest.mark.parametrize("section", ["methods", "problems"])
def test_one_method_and_one_problem_must_be_left(section):
    nothing = without_nulls(DEFAULT | {section: dict.fromkeys(DEFAULT[section])})
    assert section in mistakes(nothing)


def test_null_takes_a_variant_of_the_study_away():
    config = merged(ROOT / "config/fixed_points.yaml")
    config["fixed_points"]["variants"]["mean_square"] = None
    left = without_nulls(config)
    check(left, SCHEMA)
    assert set(config["fixed_points"]["variants"]) - set(left["fixed_points"]["variants"]) == {
        "mean_square"
    }


def test_only_gradient_descent_has_iterations_of_a_method():
    def own(method):
        return edited(at(f"methods.{method}.evaluation"), {"iterations": 5})

    check(own("rg1"), SCHEMA)
    assert mistakes(own("gauss")) == (
        "methods.gauss.evaluation.iterations: is not allowed with pnp_admm, whose iterations are "
        "under admm"
    )
