"""What counts of the code, in a small package and in rglib itself.

The truth about rglib is what executes: scripts of the workflow are run under a trace.
"""

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from test_workflow import Project, with_statement

from rglib.records.code_hash import MODULES_WITHOUT_NUMBERS, SOURCE_ROOT, code_hash, reached

TESTS = Path(__file__).parent

# --- a small project ------------------------------------------------------------------------------

FILES = {
    "rglib/__init__.py": "",
    "rglib/top.py": """
        from __future__ import annotations
        import math
        from typing import TYPE_CHECKING
        from rglib import middle
        from rglib.bottom import Shape, scale as by
        if TYPE_CHECKING:
            from rglib.bottom import OnlyForTypes
        CHOICES = {"double": middle.double, "halve": lambda x: middle.halve(x)}
        def run(x: OnlyForTypes):
            return CHOICES[x](by) + Shape().area() + math.pi
        def other(x):
            return middle.triple(x)
        """,
    "rglib/middle.py": """
        from . import bottom
        FACTOR = 2
        def double(x):
            '''Twice.'''
            return FACTOR * bottom.times(x)
        def halve(x):
            from rglib.bottom import half
            return half * x
        def triple(FACTOR):
            return 3 * FACTOR
        """,
    "rglib/bottom.py": """
        import csv
        half = 0.5
        scale = 1
        def times(x):
            return x
        class Shape:
            side = scale
            def area(self):
                return self._squared()
            def _squared(self):
                return _power(2)
        def _power(n):
            return rows("areas.csv")[n]
        def rows(name):
            return name
        class OnlyForTypes:
            pass
        """,
    "rglib/areas.csv": "1,2\n",
    "rglib/aside.py": "y = 1",
    "scripts/run.py": "from rglib.top import run\nprint(run(1))",
}


@pytest.fixture
def hashed(tmp_path):
    """Write the project, with changes of its text, and hash entry points of it."""

    def write_and_hash(*changes, entries="scripts/run.py", files=(), folder="a"):
        root = tmp_path / folder
        for name, text in (FILES | dict(files)).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        for name, old, new in changes:
            text = (root / name).read_text()
            assert text.count(old) == 1, (name, old)
            (root / name).write_text(text.replace(old, new))
        return code_hash(entries, root=root)

    return write_and_hash


REACHED = {
    "the script": ("scripts/run.py", "run(1)", "run(2)"),
    "a function": ("rglib/top.py", "+ math.pi", "- math.pi"),
    "through a module": ("rglib/middle.py", "FACTOR * bottom", "FACTOR + bottom"),
    "a constant": ("rglib/middle.py", "FACTOR = 2", "FACTOR = 4"),
    "a relative import": ("rglib/bottom.py", "return x\n", "return -x\n"),
    "an import in a function": ("rglib/bottom.py", "half = 0.5", "half = 0.4"),
    "another name for it": ("rglib/bottom.py", "scale = 1", "scale = 3"),
    "a method of a class": ("rglib/bottom.py", "_power(2)", "_power(3)"),
    "what a method calls": ("rglib/bottom.py", "[n]", "[n + 1]"),
    "a table": ("rglib/areas.csv", "1", "7"),
    "another package": ("rglib/top.py", "import math", "import cmath as math"),
    "a statement that does something": ("rglib/bottom.py", "import csv", "import csv\nprint(1)"),
}
IGNORED = {
    "an unused function": ("rglib/middle.py", "3 * FACTOR", "4 * FACTOR"),
    "an unused one of the entry's module": ("rglib/top.py", "triple(x)", "triple(2)"),
    "an unused module": ("rglib/aside.py", "1", "2"),
    "a docstring": ("rglib/middle.py", "Twice.", "Two times."),
    "a comment": ("rglib/middle.py", "FACTOR = 2", "# why\nFACTOR   =  2  # how"),
    "what is imported for types alone": ("rglib/bottom.py", "    pass", "    x = 1"),
    "an unused import": ("rglib/bottom.py", "import csv", "import json"),
}


@pytest.mark.parametrize("change", REACHED.values(), ids=REACHED)
def test_a_change_of_what_is_reached_counts(hashed, change):
    assert hashed(change) != hashed()


@pytest.mark.parametrize("change", IGNORED.values(), ids=IGNORED)
def test_a_change_of_anything_else_does_not(hashed, change):
    assert hashed(change) == hashed()


def test_the_place_does_not_count_nor_does_the_order(hashed):
    first = FILES["rglib/aside.py"]
    assert hashed() == hashed(folder="elsewhere/deep")
    swapped = {"rglib/aside.py": f"def f(): return 1\n{first}"}
    straight = {"rglib/aside.py": f"{first}\ndef f(): return 1"}
    aside = "rglib.aside"
    assert hashed(files=swapped, entries=aside) == hashed(files=straight, entries=aside)


def test_a_local_name_is_not_the_modules(hashed):
    """`triple` has a parameter of the name of a constant."""
    entry = "rglib.middle:triple"
    assert hashed(REACHED["a constant"], entries=entry) == hashed(entries=entry)


SCOPES = {
    "def f():\n    return [x for x in y]": {"y"},
    "def f(x=y):\n    z = x\n    return lambda w: w + z + v": {"y", "v"},
    "def f():\n    global x\n    x = y": {"y"},
    "class C:\n    x = y\n    def f(self):\n        return x": {"x", "y"},
    "def f():\n    def g():\n        return x\n    x = 1\n    return g": set(),
    "def f(a):\n    match a:\n        case {'k': x, **rest}:\n            return x, rest, y": {"y"},
    "def f():\n    try:\n        g()\n    except E as e:\n        return e": {"g", "E"},
    "@d\ndef f(a: A, *args: B, **kw: C) -> D:\n    return (b := a), b, kw, args": {"d"},
}


@pytest.mark.parametrize("definition", SCOPES)
def test_names_are_found_by_pythons_rules_of_scope(hashed, definition):
    names = {"x", "y", "z", "v", "w", "g", "E", "d", "A", "B", "C", "D", "b"} - {"C"}
    module = "\n".join(f"{name} = 1" for name in sorted(names)) + f"\n{definition}\n"
    entry = "rglib.aside:C" if definition.startswith("class") else "rglib.aside:f"
    hashed(files={"rglib/aside.py": module}, entries=entry)
    root = next(path for path in Path(hashed.__closure__[0].cell_contents).iterdir())
    found = {name.split(":")[1] for name in reached(entry, root=root)} - {"f", "C"}
    assert found == SCOPES[definition]


def test_of_a_dict_only_the_chosen_keys_count(hashed):
    halve = REACHED["an import in a function"]
    double = REACHED["a constant"]
    for key, counts, does_not in (("double", double, halve), ("halve", halve, double)):
        entries = f"scripts/run.py rglib.top:CHOICES[{key}]"
        assert hashed(counts, entries=entries) != hashed(entries=entries)
        assert hashed(does_not, entries=entries) == hashed(entries=entries)
    choices = ("[]", "[halve,double]", "[double] rglib.top:CHOICES[halve]")
    none, both, twice = (f"scripts/run.py rglib.top:CHOICES{keys}" for keys in choices)
    assert hashed(halve, entries=none) == hashed(entries=none)
    assert hashed(halve, entries=both) != hashed(entries=both)
    assert hashed(entries=both) == hashed(entries=twice) != hashed(entries=none)


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ("scripts/gone.py", ModuleNotFoundError, "scripts/gone.py"),
        ("rglib.gone", ModuleNotFoundError, "rglib.gone"),
        ("rglib.top:gone", ModuleNotFoundError, "gone"),
        ("rglib.top rglib.top:CHOICES[treble]", ValueError, "no key treble"),
        ("rglib.top rglib.top:run[x]", ValueError, "no dict"),
    ],
)
def test_what_is_not_there_is_named(hashed, entries, error, text):
    with pytest.raises(error, match=text):
        hashed(entries=entries)


@pytest.mark.parametrize(
    "code",
    [
        "import rglib.aside as a\ndef f(g): return g(a)",
        "from rglib import aside\ndef f(name): return getattr(aside, name)",
        "def f(): return ['python', '-m', 'rglib.aside']",
        "from rglib.aside import *\ndef f(): return y",
        "def f():\n    import rglib.aside\n    return rglib.aside.y",
    ],
)
def test_a_module_whose_use_cannot_be_told_counts_as_a_whole(hashed, code):
    files, entry = {"rglib/last.py": code}, "rglib.last:f"
    changed = hashed(IGNORED["an unused module"], files=files, entries=entry)
    assert changed != hashed(files=files, entries=entry)


OWN = {
    "mine.py": "from beside import helper\nfrom rglib import bottom\nx = bottom.scale\nMine = 1",
    "beside.py": "from deep import nested\nhelper = 1\nunused = 2\n",
    "deep/__init__.py": "",
    "deep/nested.py": "z = open('kernel.txt'), open('data/mask.txt')\n",
    "deep/kernel.txt": "1 2 1",
    "data/mask.txt": "0 1",
}


@pytest.mark.parametrize(
    "change",
    [
        ("mine.py", "x = b", "y = b"),
        ("beside.py", "unused = 2", "unused = 3"),
        ("deep/nested.py", "z =", "w ="),
        ("deep/kernel.txt", "1 2 1", "1 3 1"),
        ("data/mask.txt", "0 1", "1 0"),
        REACHED["another name for it"],
    ],
    ids=lambda change: change[0],
)
def test_of_your_own_code_all_counts_that_it_imports(hashed, change):
    options = {"files": OWN, "entries": "mine:Mine"}
    assert hashed(change, **options) != hashed(**options)
    beside = REACHED["a method of a class"]
    assert hashed(beside, **options) == hashed(**options)


@pytest.mark.parametrize(
    "package",
    [
        "from . import nested",
        "from .nested import nested",
        "from deep.nested import *",
        "import deep.nested as nested\nfrom deep import nested",
    ],
)
def test_packages_that_pass_on_their_modules_end(hashed, package):
    files = OWN | {"deep/__init__.py": package, "deep/nested.py": "nested = 1"}
    options = {"files": files, "entries": "mine:Mine"}
    assert hashed(("deep/nested.py", "1", "2"), **options) != hashed(**options)


# --- rglib ----------------------------------------------------------------------------------------


EVERY = ("all", "tune", "bound", "acceleration", "ablations", "symmetry")


def planned(folder, targets=EVERY, overlays=()):
    """The parameters of each job of the workflow, at test scale."""
    command = [sys.executable, str(TESTS / "planned_jobs.py"), str(folder)]
    done = subprocess.run(
        [*command, *targets, "--", "config/test.yaml", *overlays],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@cache
def parameters(targets=EVERY, overlays=()):
    """The parameters of each job of the project itself."""
    return planned(SOURCE_ROOT, targets, overlays)


def jobs(targets=EVERY, overlays=()):
    """The code of each job: a parameter of its rule."""
    return {job: of["code"] for job, of in parameters(targets, overlays).items()}


STUDY = (("fixed_points",), ("config/fixed_points.yaml",))


def made(of_jobs):
    """The functions that make the results of jobs, each with what it is given."""
    return {of["make"]: of["given"] for of in of_jobs.values() if "make" in of}


def test_every_script_of_the_workflow_is_the_entry_point_of_its_rule():
    scripts = {path.name for path in (SOURCE_ROOT / "workflow/scripts").glob("*.py")}
    study = jobs(*STUDY)
    seen = {next(iter(code)).split()[0] for code in [*jobs().values(), *study.values()]}
    # of other targets and settings
    others = {"given.py", "lpips.py", "overfit.py", "publish_weights.py"}
    assert seen == {f"workflow/scripts/{name}" for name in scripts - others}


def test_every_result_is_made_by_a_function_of_a_job_and_of_what_its_rule_gives():
    for reference, given in made(parameters() | parameters(*STUDY)).items():
        module, _, name = reference.partition(":")
        function = getattr(import_module(module), name)
        assert list(inspect.signature(function).parameters) == ["job", *given], reference


def test_a_file_that_an_option_of_your_own_names_counts(tmp_path):
    project = Project.copied(tmp_path / "project")
    shutil.copy(project / "examples/motion.py", project / "mine.py")
    with (project / "mine.py").open("a") as file:
        file.write("def blur(kernel):\n    return MotionBlur(length=3, sigma=0.01)\n")
    own = {"degradation": "mine:blur", "options": {"kernel": "kernel.txt"}}
    own |= {"lr": 0.004, "s_255": 2.55, "source": {"lr": "ours", "s_255": "noise"}}
    (project / "own.yaml").write_text(json.dumps({"problems": {"mine": own}}))
    (project / "kernel.txt").write_text("1 2 1")
    target = ("work/test/evaluation/gauss.csv",)

    def evaluation():
        return planned(project.folder, target, ("own.yaml",))["evaluate method=gauss"]

    before = evaluation()
    assert evaluation() == before
    (project / "kernel.txt").write_text("1 3 1")
    assert evaluation()["problems"]["mine"] != before["problems"]["mine"]


@pytest.fixture
def mutated(tmp_path):
    """The jobs whose code changes as a function of rglib is given one more statement."""
    for folder in ("rglib", "workflow"):
        shutil.copytree(SOURCE_ROOT / folder, tmp_path / folder)

    def jobs_of(module, name):
        path = tmp_path / module
        source = path.read_text()
        try:
            path.write_text(with_statement(source, name))
            changed = cache(lambda entries: code_hash(entries, root=tmp_path))
            return {
                job
                for job, code in jobs().items()
                if any(changed(entries) != before for entries, before in code.items())
            }
        finally:
            path.write_text(source)

    return jobs_of


def of(*rules):
    return {job for job in jobs() if job.split(" ")[0] in rules}


def trainings(*stages):
    found = {job for job in jobs() if job.startswith("train_")}
    return {job for job in found if not stages or job.removeprefix("train_").startswith(stages)}


def evaluations(*methods):
    found = of("evaluate")
    return {job for job in found if not methods or job.split("=")[1].startswith(methods)}


def test_a_change_counts_where_its_code_is_used_and_nowhere_else(mutated):
    """The truth is the paper's: who trains with what, and who restores by what."""
    by_admm, descent = evaluations("gauss", "mtdeq"), evaluations("pnp", "rg", "deqgd", "rerg")
    tuned = {
        f"tune_target target={task}" for task in ("completion", "deblurring", "super_resolution")
    }
    with_networks = of(
        "evaluate",
        "tune_target",
        "bound_of_method",
        "acceleration_in_training",
        "symmetry_of_method",
    )
    expected = {
        ("rglib/core/networks.py", "DRUNet.unet"): trainings() | with_networks,
        ("rglib/training/stage.py", "_health_images"): trainings(),
        ("rglib/training/diagnostics.py", "Health.__call__"): trainings(),
        ("rglib/training/objectives/denoising.py", "Denoising.__call__"): trainings("denoiser"),
        ("rglib/training/objectives/pnpreg.py", "PnPReG.__call__"): trainings("pnpreg"),
        ("rglib/core/algorithms.py", "PnPADMM.restore"): by_admm | tuned,
        ("rglib/restoration/restorers.py", "_gradient_descent"): descent
        | of("tune_target") - tuned,
        ("rglib/core/fixed_point.py", "SemiImplicit.step"): of(
            "acceleration_in_training", "symmetry_of_method"
        )
        | trainings("mtdeq", "rg1", "deqgd", "rerg")  # by `equilibrium: solver`
        | {job for job in descent if not job.endswith("-adam")}
        | of("tune_target") - tuned,
        ("rglib/studies/acceleration.py", "compare_solvers"): of("acceleration_in_training"),
        ("rglib/studies/tuning.py", "tune"): of("tune_target"),
        ("rglib/studies/theorem1.py", "both_sides"): of("bound_of_method"),
        ("rglib/data/images.py", "build_store"): of("store"),
        ("rglib/data/download.py", "download"): of("dataset", "test_set"),
    }
    for (module, name), jobs_expected in expected.items():
        assert mutated(module, name) - shown() == jobs_expected, name


def test_what_only_shows_the_numbers_makes_none_of_them_again(mutated):
    for (module, name), jobs_expected in {
        ("rglib/report/figures.py", "fig1"): of("make_fig1"),
        ("rglib/report/claims.py", "check_claims"): of("make_claims"),
        ("rglib/report/page/page.py", "write_page"): of("make_page"),
        ("rglib/report/evaluations.py", "latex_table"): of("make_tables"),
        ("rglib/plan/check.py", "check"): set(),
        ("rglib/progress.py", "progress"): set(),
    }.items():
        assert mutated(module, name) == jobs_expected, name


def shown():
    """The jobs that make tables, figures and texts of numbers that others have computed."""
    return {job for job in jobs() if job.startswith(("make_", "results"))}


def test_the_hashes_of_all_rules_take_well_under_a_second():
    entries = {entry for code in jobs().values() for entry in code}
    began = time.process_time()
    for entry in entries:
        code_hash(entry)
    assert len(entries) > 20 and time.process_time() - began < 1


# --- what executes --------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_function_that_a_job_executes_is_in_its_hash(tmp_path):
    """Every rule's script under a trace, at the smallest scale."""
    project = Project.copied(tmp_path / "project")
    project.configure(reduced)
    seen = tmp_path / "seen"
    seen.mkdir()
    studies = ("tune", "bound", "acceleration", "symmetry", "ablations")
    project.snakemake("all", *studies, "work/test/overfit/denoiser.json", traced=seen)
    weights = {"P": {"file": "work/test/models/denoiser/P.safetensors"}}
    given = {"run": "given", "init": "weights", "weights": {"denoiser": weights}}
    given["bound"] = {"denoiser": "denoiser"}  # of pnpreg only the G is given
    project.snakemake("work/given/models/denoiser/card.json", overlay=given, traced=seen)
    jobs = [json.loads(path.read_text()) for path in seen.iterdir()]
    scripts = {path.name for path in (project / "workflow/scripts").glob("*.py")}
    study = {"study_fixed_points.py", "study_gradients.py"}  # minutes of training
    assert {job["script"] for job in jobs} == scripts - {"publish_weights.py", "lpips.py"} - study
    reports = [next(iter(job["code"])).split() for job in jobs if job["script"] == "report.py"]
    assert {make for _, make, *_ in reports} == set(made(parameters()))
    for job in jobs:
        own = next(entries for entries in job["code"])
        counted = reached(own, root=project.folder)
        executed = {name for place in job["called"] for name in definition_at(project, *place)}
        assert executed, job["script"]
        # a package is asked for its attribute, in vain, before a module in it is imported
        assert executed - {"rglib:__getattr__"} <= counted, (own, executed - counted)


def reduced(config):
    """Of everything what takes every rule's way once: two methods, two problems, one ablation."""
    for section, kept in {
        "methods": ("gauss", "pnpreg"),
        "problems": ("completion90", "deblur_s1.6"),
    }.items():
        config[section] = {name: config[section][name] for name in kept}
    config["bound"]["denoiser"] = "pnpreg"
    config["acceleration"]["training"]["stage"] = "pnpreg"
    config["ablations"] = {
        "no_ensemble": {"label": "none", "method": "pnpreg", "evaluation": {"ensemble": False}}
    }


@cache
def definition_at(project, file, line):
    """The names that a statement at the top of a module binds, or none of a module left out."""
    module = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
    if module in MODULES_WITHOUT_NUMBERS:
        return ()
    for node in ast.parse((project / file).read_text()).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        if first <= line <= node.end_lineno:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            names = [getattr(one, "name", None) or getattr(one, "id", "") for one in targets]
            return tuple(f"{module}:{name}" for name in names)
    raise AssertionError((file, line))


def test_the_papers_claims_and_tables_count_for_what_reads_them(tmp_path):
    """By the records too, as `rglib verify` compares this hash."""
    shutil.copytree(SOURCE_ROOT / "rglib", tmp_path / "rglib")
    shutil.copytree(SOURCE_ROOT / "workflow/scripts", tmp_path / "workflow/scripts")
    claims = "workflow/scripts/report.py rglib.report.claims:write_claims"
    entries = {"claims": claims, "train": "workflow/scripts/train.py"}

    def hashes():
        return {name: code_hash(entry, root=tmp_path) for name, entry in entries.items()}

    for file in ("claims.yaml", "tables.csv"):
        path = tmp_path / "rglib/paper" / file
        before = hashes()
        path.write_text(path.read_text().replace("0", "1", 1))
        after = hashes()
        assert after["claims"] != before["claims"]
        assert after["train"] == before["train"]
