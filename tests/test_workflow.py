"""The workflow as a user runs it, at the scale of config/test.yaml, in copies of the project."""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rglib.records.provenance import usable_processors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TRACED = Path(__file__).with_name("traced")
METHODS = ["gauss", "mtdeq", "pnpreg", "rg1", "deqgd", "rerg"]
BY_DESCENT = METHODS[2:]
TABLES = {
    1: ["completion80", "completion90", "deblur_s1.6", "deblur_s2.0"],
    2: [
        *(
            f"sr2_{kernel}_n{sigma}"
            for kernel in ("bicubic", "gaussian")
            for sigma in ("0", "0.01")
        ),
        *(
            f"sr3_{kernel}_n{sigma}"
            for kernel in ("bicubic", "gaussian")
            for sigma in ("0", "0.01")
        ),
    ],
}
PROBLEMS = TABLES[1] + TABLES[2]
REPORT = {
    "results",
    "make_tables table=1",
    "make_tables table=2",
    "make_convergence",
    "make_claims",
    "make_fig1",
    "make_fig2",
    "make_page",
    "all",
}
SETTINGS = {"settings"}  # beside the networks, for those who restore with them
LIMIT = 600  # seconds of any one command


@dataclass(frozen=True)
class Project:
    """A copy of the project, in a folder of its own."""

    folder: Path

    @classmethod
    def copied(cls, folder):
        """Copy what git tracks or would track."""
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        return cls(folder)

    def copy(self, folder):
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def __truediv__(self, name):
        return self.folder / name

    def start(
        self, *arguments, overlay=None, config="config/test.yaml", also=(), mirrors="", traced=None
    ):
        """Start snakemake with overlays over a configuration; no mirror but these, no internet.

        ``traced`` is a folder to note in which functions each job executes.
        """
        files = [config, *also] if config else [*also]
        if overlay is not None:
            (self / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            files.append("overlay.yaml")
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        kept = {k: v for k, v in os.environ.items() if k not in ("RGLIB_MIRRORS", "PYTHONPATH")}
        return subprocess.Popen(
            [*command, "--configfile", *files] if files else command,
            cwd=self.folder,
            env=kept | self._environment(mirrors, traced),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _environment(self, mirrors, traced):
        variables = {"PYTHONPATH": str(self.folder), "RGLIB_OFFLINE": "1"}
        if mirrors:
            variables["RGLIB_MIRRORS"] = str(mirrors)
        if traced:
            variables["PYTHONPATH"] += f"{os.pathsep}{TRACED}"
            variables["RGLIB_TRACE"] = str(traced)
        return variables

    def snakemake(self, *arguments, fails=False, **options):
        """Run snakemake to its end and return what it said."""
        process = self.start(*arguments, **options)
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert (process.returncode != 0) == fails, said
        return said

    def planned(self, *targets, **options):
        """The jobs of a dry run, each as its rule and wildcards."""
        said = self.snakemake("--dry-run", *targets, **options)
        blocks = re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)+)", said, re.M)
        wildcards = [re.search(r"^ +wildcards: (.*)$", block, re.M) for _, block in blocks]
        jobs = [
            rule + (f" {found.group(1)}" if found else "")
            for (rule, _), found in zip(blocks, wildcards, strict=True)
        ]
        total = re.search(r"^total +(\d+)$", said, re.M)
        assert len(jobs) == (int(total.group(1)) if total else 0), said
        assert jobs or "Nothing to be done" in said, said
        return set(jobs)

    def append(self, module, code):
        with (self / module).open("a") as file:
            file.write(f"\n{code}\n")

    def mutate(self, module, name):
        """Give a function one more statement."""
        path = self / module
        path.write_text(with_statement(path.read_text(), name))

    def configure(self, change):
        """Change config.yaml itself: overlays only add."""
        config = yaml.safe_load((self / "config.yaml").read_text())
        change(config)
        (self / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def digests(self, folder):
        files = (path for path in (self / folder).rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def evaluate(*methods):
    return {f"evaluate method={method}" for method in methods}


def changed(key, value):
    """A configuration with the one entry at a dotted path."""
    for part in reversed(key.split("/")):
        value = {part: value}
    return value


def with_statement(source, name):
    """A module with one more statement in a function, named with dots where it is in a class."""
    lines = source.splitlines()
    body = ast.parse(source).body
    for part in name.split("."):
        (found,) = [node for node in body if getattr(node, "name", None) == part]
        body = found.body
    first = body[1] if len(body) > 1 and ast.get_docstring(found) else body[0]
    lines.insert(first.lineno - 1, " " * first.col_offset + "_mutated = 0")
    return "\n".join(lines) + "\n"


@contextmanager
def restored(path):
    """Put a file's content back afterwards."""
    content = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(content)


def wait_for(condition, process):
    """Wait until a condition holds while a process runs."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The project as it is committed, nothing run yet."""
    return Project.copied(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def finished(source, tmp_path_factory):
    """The project with everything made; to look at, not to change."""
    project = source.copy(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake()
    return project


@pytest.fixture(scope="session")
def to_plan(finished, tmp_path_factory):
    """A finished project for dry runs; a test puts back what it changes."""
    return finished.copy(tmp_path_factory.mktemp("to_plan") / "project")


@pytest.fixture
def project(finished, tmp_path):
    """A finished project to change."""
    return finished.copy(tmp_path / "project")


# --- what a run makes -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", [1, 2])
def test_the_tables_have_the_papers_rows_and_columns(finished, table):
    csv = pd.read_csv(finished / f"results/table{table}.csv")
    assert ",".join(csv) == (
        "table,method,problem_id,psnr_db,ssim,psnr_best_db,iterations,converged,seconds,"
        "paper_psnr_db,paper_ssim"
    )
    rows = [(method, problem) for method in METHODS for problem in TABLES[table]]
    assert sorted(zip(csv.method, csv.problem_id, strict=True)) == sorted(rows)
    assert (csv.table == table).all() and csv.notna().all(axis=None)


def test_results_have_a_row_for_every_method_problem_and_image(finished):
    results = pd.read_csv(finished / "results/results.csv")
    assert ",".join(results) == (
        "method,seed,problem_id,image,height,width,psnr_start_db,ssim_start,psnr_db,ssim,psnr_best_db,"
        "iteration_best,iterations,outcome,residual_start,residual,seconds"
    )
    images = results.image.nunique()
    assert len(results) == len(METHODS) * len(PROBLEMS) * images
    assert not results.duplicated(["method", "problem_id", "image"]).any()


def test_the_convergence_starts_at_the_starting_point(finished):
    convergence = pd.read_csv(finished / "results/convergence.csv")
    assert ",".join(convergence) == "method,problem_id,iteration,psnr_db"
    start = convergence[convergence.iteration == 0].set_index(["method", "problem_id"]).psnr_db
    results = pd.read_csv(finished / "results/results.csv")
    expected = results.groupby(["method", "problem_id"]).psnr_start_db.mean()
    assert len(start) == len(METHODS) * len(PROBLEMS)
    assert (start - expected).abs().max() < 1e-3


@pytest.mark.parametrize(
    "name", ["table1.md", "table1.tex", "table2.md", "table2.tex", "claims.md"]
)
def test_every_text_says_what_made_it(finished, name):
    text = (finished / "results" / name).read_text(encoding="utf-8")
    facts = ("Run test, ", "embedded test photographs", "record beside the CSV")
    for fact in [*facts, "8-8-8-8"] if "table1" in name else facts:
        assert fact in text


@pytest.mark.parametrize("name", ["table1", "table2", "results", "convergence", "claims"])
def test_every_csv_has_metadata(finished, name):
    metadata = json.loads((finished / f"results/{name}.csv-metadata.json").read_text())
    columns = [column["name"] for column in metadata["tableSchema"]["columns"]]
    assert columns == list(pd.read_csv(finished / f"results/{name}.csv"))
    assert metadata["dc:provenance"]["run"] == "test"


@pytest.mark.parametrize("figure", ["fig1", "fig2"])
def test_every_figure_says_what_made_it(finished, figure):
    with Image.open(finished / f"results/{figure}.png") as picture:
        assert "Run test, configuration " in picture.text["Description"]
    assert (finished / f"results/{figure}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_has_the_numbers_of_the_tables_and_the_curves_of_all_stages(finished):
    page = (finished / "results/report.html").read_text(encoding="utf-8")
    for table in TABLES:
        for row in pd.read_csv(finished / f"results/table{table}.csv").itertuples():
            cell = rf'data-method="{row.method}" data-problem="{row.problem_id}">\s*'
            number = r'<div class="psnr_db"><span class="ours[^"]*">([^<]*)<'
            found = re.search(cell + number, page)
            assert found.group(1) == f"{row.psnr_db:.2f}"
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S).group(1))
    stages = {"denoiser", "residual", "pnpreg", "mtdeq", "rg1", "deqgd", "rerg"}
    assert set(data["training"]) == stages and all(data["training"].values())
    assert list(data["convergence"]) == list(data["pictures"]["comparisons"]) == PROBLEMS
    metadata = json.loads((finished / "results/report.html-metadata.json").read_text())
    assert metadata["dc:provenance"]["run"] == "test"


def test_a_changed_template_writes_the_page_anew(to_plan):
    with restored(to_plan / "rglib/report/page/assets/page.html"):
        to_plan.append("rglib/report/page/assets/page.html", "<!-- changed -->")
        assert to_plan.planned() == {"make_page", "all"}


def test_every_stage_has_weights_a_card_a_history_and_tensorboard_files(finished):
    for stage in ("denoiser", "residual", "pnpreg", "mtdeq", "rg1", "deqgd", "rerg"):
        card = json.loads((finished / f"work/test/models/{stage}/card.json").read_text())
        assert card["stage"] == stage and not card["given"]
        assert list((finished / f"work/test/models/{stage}").glob("*.safetensors"))
        training = finished / f"work/test/training/{stage}"
        assert {"step", "loss", "lr"} <= set(pd.read_csv(training / "history.csv"))
        assert list((training / "tensorboard").iterdir())


def test_the_networks_of_a_run_restore_images_with_its_settings(finished, tmp_path):
    Image.effect_noise((32, 32), 50).save(tmp_path / "y.png")
    line = "-m rglib restore y.png --problem sr2_bicubic_n0 --border circular -o x.npy --models"
    command = [sys.executable, *line.split(), str(finished / "work/test/models")]
    subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(finished.folder)}, check=True
    )
    assert np.load(tmp_path / "x.npy").shape == (64, 64)
    settings = json.loads((finished / "work/test/models/settings.json").read_text())
    assert settings["run"] == "test" and settings["evaluation"]["iterations"] == 3


def test_nothing_intermediate_lies_outside_work(finished, source):
    made = {path.name for path in finished.folder.iterdir()}
    assert made - {path.name for path in source.folder.iterdir()} <= {
        "work",
        "results",
        ".snakemake",
    }


# --- what runs again ------------------------------------------------------------------------------


def test_a_second_run_does_nothing(project):
    assert "Nothing to be done" in project.snakemake()


@pytest.mark.parametrize("target", ["tables", "figures", "report", "models"])
def test_the_targets_are_made_by_a_full_run(to_plan, target):
    assert to_plan.planned(target) == set()


def test_a_single_figure_can_be_asked_for_without_options(project):
    (project / "results/fig2.pdf").unlink()
    assert project.planned("results/fig2.pdf") == {"make_fig2"}
    project.snakemake("results/fig2.pdf")
    assert (project / "results/fig2.pdf").exists()


CHANGES = [
    ("stages/rg1/optimiser/lr", 3.0e-5, {"train_rg1"} | evaluate("rg1") | REPORT),
    ("stages/rg1/precision", "bfloat16", {"train_rg1"} | evaluate("rg1") | REPORT),
    ("stages/deqgd/budget/steps", 3, {"train_deqgd"} | evaluate("deqgd") | REPORT),
    ("problems/completion80/lr", 0.02, evaluate(*BY_DESCENT) | SETTINGS | REPORT),
    ("admm/completion/iterations", 3, evaluate("gauss", "mtdeq") | SETTINGS | REPORT),
    ("methods/rg1/label", "RG one", SETTINGS | REPORT),
    ("stages/rg1/log/every", 2, REPORT),
    ("threads/train", 2, set()),
    ("mirrors", ["elsewhere"], set()),
    ("ablations/rerg_seed/stage/seed", 2, set()),
    ("acceleration/crop", 64, set()),
]


@pytest.mark.parametrize(("key", "value", "again"), CHANGES, ids=[key for key, _, _ in CHANGES])
def test_a_changed_setting_reruns_what_depends_on_it_and_no_more(to_plan, key, value, again):
    assert to_plan.planned(overlay=changed(key, value)) == again


def test_the_ablations_reuse_the_networks_and_evaluations_of_the_tables(to_plan):
    ablations = yaml.safe_load((ROOT / "config.yaml").read_text())["ablations"]
    trained = {f"train_{name}" for name, ablation in ablations.items() if "stage" in ablation}
    expected = trained | evaluate(*ablations) | {"make_ablations", "ablations"}
    assert to_plan.planned("ablations") == expected


CODE = {
    ("rglib/core/networks.py", "DRUNet.unet"): (
        {f"train_{stage}" for stage in ("denoiser", "residual", "pnpreg", *METHODS[1:2], "rg1")}
        | {"train_deqgd", "train_rerg"}
        | evaluate(*METHODS)
        | REPORT
    ),
    ("rglib/training/objectives/equilibrium.py", "Equilibrium.__call__"): (
        {"train_mtdeq", "train_rg1", "train_deqgd", "train_rerg"}
        | evaluate("mtdeq", "rg1", "deqgd", "rerg")
        | REPORT
    ),
    ("rglib/training/objectives/pnpreg.py", "PnPReG.__call__"): (
        {"train_pnpreg", "train_rg1", "train_deqgd", "train_rerg"} | evaluate(*BY_DESCENT) | REPORT
    ),
    ("rglib/restoration/evaluation.py", "evaluate"): evaluate(*METHODS) | REPORT,
    ("rglib/core/algorithms.py", "PnPADMM.restore"): evaluate("gauss", "mtdeq") | REPORT,
    ("rglib/report/claims.py", "check_claims"): {"make_claims", "make_page"},
    ("rglib/report/page/page.py", "write_page"): {"make_page"},
}


@pytest.mark.parametrize(("module", "name"), CODE)
def test_changed_code_reruns_what_uses_it_and_no_more(to_plan, module, name):
    with restored(to_plan / module):
        to_plan.mutate(module, name)
        assert to_plan.planned() - {"all"} == CODE[module, name] - {"all"}


def test_changed_comments_docstrings_and_captions_rerun_nothing(project):
    scripts = (project / "workflow/scripts").glob("*.py")
    for path in [*(project / "rglib").rglob("*.py"), *scripts]:
        path.write_text(f"# A comment.\n{path.read_text()}\n'''Another docstring.'''\n")
    for path in (project / "workflow/report").glob("*.rst"):
        path.write_text(f"{path.read_text()} Another sentence.\n")
    assert project.planned() == set()


# --- another run, given weights, the test set out of reach ----------------------------------------


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory):
    """After the run `test` another one: pnpReG alone, weights given, Set5 out of reach."""
    project = finished.copy(tmp_path_factory.mktemp("other") / "project")
    before = project.digests("work/test")
    given = {role: {"file": f"work/test/models/pnpreg/{role}.safetensors"} for role in "PG"}
    overlay = {
        "run": "other",
        "init": "weights",
        "data": {"test": "set5", "test_stand_in": "embedded_test"},
    }

    def change(config):
        config["methods"] = {"pnpreg": config["methods"]["pnpreg"]}
        config["weights"] = {"pnpreg": given}

    with restored(project / "config.yaml"):
        project.configure(change)
        said = project.snakemake(overlay=overlay)
    return project, before, said


def test_a_stage_with_given_weights_is_not_trained(other):
    project, _, said = other
    assert "given_pnpreg, log in" in said and "train_" not in said
    card = json.loads((project / "work/other/models/pnpreg/card.json").read_text())
    assert card["given"] and card["source"] == {r: f"{r}.safetensors" for r in "PG"}
    assert not (project / "work/other/training").exists()


def test_runs_are_kept_apart(other, finished):
    project, before, said = other
    assert project.digests("work/test") == before
    kept, made = (
        {path.name: digest for path, digest in digests.items() if "published" not in path.parts}
        for digests in (project.digests("results/earlier/test"), finished.digests("results"))
    )
    assert kept == made
    assert "results of the run test: they are now in results/earlier/test/" in said
    assert project.planned() == REPORT


def test_a_stand_in_for_the_test_set_is_named_everywhere(other):
    project, _, said = other
    named = "embedded test photographs instead of Set5"
    assert "THE TEST SET Set5 IS OUT OF REACH" in said
    for name in ("table1.md", "table2.md", "table1.tex", "table2.tex", "claims.md"):
        text = (project / "results" / name).read_text(encoding="utf-8")
        assert "STAND-IN test set embedded test photographs (not Set5)" in text, name
        assert (named in text) == ("table1" in name), name
    for name in ("table1", "table2", "results", "convergence", "claims"):
        metadata = json.loads((project / f"results/{name}.csv-metadata.json").read_text())
        assert metadata["dc:provenance"]["stand_in_for"] == "Set5"
    for name in ("fig1", "fig2"):
        with Image.open(project / f"results/{name}.png") as picture:
            assert named in picture.text["Description"]
        pdf = (project / f"results/{name}.pdf").read_bytes()
        assert named.encode() in pdf or named.encode("utf-16-be") in pdf


def test_without_a_stand_in_it_stops_and_says_what_to_do(source, tmp_path):
    project = source.copy(tmp_path / "project")
    said = project.snakemake(fails=True, overlay={"data": {"test": "set5", "test_stand_in": None}})
    assert "the data set Set5 (set5) is out of reach" in said and "RGLIB_MIRRORS" in said
    made = {path.name for path in (project / "results").glob("*")} - {"published"}
    assert not made


# --- several seeds, and tuning --------------------------------------------------------------------


def test_a_further_seed_trains_its_copies_and_leaves_the_first_alone(to_plan):
    stages = ("denoiser", "residual", "pnpreg", "mtdeq", "rg1", "deqgd", "rerg")
    copies = evaluate(*(f"{method}.seed1" for method in METHODS))
    expected = {f"train_{stage}_seed1" for stage in stages} | copies | REPORT
    assert to_plan.planned(overlay={"seeds": [0, 1]}) == expected


def test_tables_of_several_seeds_say_mean_and_spread(project):
    """MTDEQ with given weights, RG1 trained twice."""
    roles = {"denoiser": "P", "pnpreg": "PG", "mtdeq": "P"}

    def change(config):
        config["methods"] = {name: config["methods"][name] for name in ("mtdeq", "rg1")}
        config["weights"] = {
            stage: {role: {"file": f"work/test/models/{stage}/{role}.safetensors"} for role in of}
            for stage, of in roles.items()
        }
        config["problems"] = {"completion80": config["problems"]["completion80"]}

    project.configure(change)
    overlay = {"run": "seeds", "seeds": [0, 1], "init": "weights"}
    project.snakemake("results/table1.md", "results/fig2.pdf", fails=True, overlay=overlay)
    project.snakemake("results/table1.md", overlay=overlay)
    results = pd.read_csv(project / "results/results.csv")
    assert results.groupby("method").seed.unique().map(list).to_dict() == {
        "mtdeq": [0],
        "rg1": [0, 1],
    }
    by_seed = results[results.method == "rg1"].groupby("seed").psnr_db.mean()
    table = pd.read_csv(project / "results/table1.csv").set_index("method")
    assert by_seed[0] != by_seed[1]
    assert table.loc["rg1", "psnr_db"] == pytest.approx(by_seed.mean())
    assert table.loc["rg1", "psnr_std_db"] == pytest.approx(by_seed.std())
    text = (project / "results/table1.md").read_text(encoding="utf-8")
    assert text.count("±") == 3 and "seeds 0, 1" in text


def test_tuning_writes_the_grid_and_an_overlay_that_changes_what_it_chose(project):
    project.snakemake("tune")
    grid = pd.read_csv(project / "results/tuning.csv")
    assert set(grid.algorithm) == {"gradient_descent", "pnp_admm"}
    assert (grid.groupby(["target", "problem_id"]).chosen.sum() == 1).all()
    tuned = yaml.safe_load((project / "results/tuned.yaml").read_text())
    assert "completion80" not in tuned["problems"]  # released
    merged = project.planned(overlay=tuned)
    assert evaluate(*METHODS) <= merged and not [job for job in merged if "train" in job]


# --- the accelerated solver -----------------------------------------------------------------------


def test_the_accelerated_solver_is_set_beside_adam_with_the_networks_of_the_tables(project):
    copies = [f"{method}-{solver}" for method in BY_DESCENT for solver in ("adam", "semi_implicit")]
    in_training = {f"acceleration_in_training method={method}" for method in BY_DESCENT}
    made = {"make_acceleration", "make_acceleration_figure", "acceleration"}
    assert project.planned("acceleration") == evaluate(*copies) | in_training | made
    project.snakemake("acceleration")
    table = pd.read_csv(project / "results/acceleration.csv")
    assert ",".join(table) == "method,problem_id,solver,calls,psnr_db,psnr_adam3_db"
    assert list(table.method.unique()) == BY_DESCENT and list(table.problem_id.unique()) == PROBLEMS
    calls = table.groupby("solver").calls.unique().map(list).to_dict()
    assert calls == {"adam": [0, 1, 2, 3], "semi_implicit": [9, 10, 11]}  # 9 on crops this small
    starts = table[table.calls.isin([0, 9])].set_index("problem_id").groupby("solver").psnr_db
    adam, ours = (starts.get_group(solver) for solver in ("adam", "semi_implicit"))
    completion = adam.index.str.startswith("completion")
    assert (ours[completion] > adam[completion] + 3).all()  # from interpolated pixels
    assert (ours[~completion] == adam[~completion]).all()
    training = pd.read_csv(project / "results/acceleration_training.csv")
    assert len(training) == 2 * len(BY_DESCENT)
    text = (project / "results/acceleration.md").read_text(encoding="utf-8")
    assert "crops of 32x32 pixels" in text and "of 48** problems x methods" in text
    assert project.planned("acceleration") == set()
    again = evaluate(*copies) | made
    assert project.planned("acceleration", overlay=changed("acceleration/crop", 64)) == again


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = [
    ("stages/rg1/optimiser/learning_rate", 1.0e-5, "stages.rg1.optimiser.learning_rate"),
    ("evaluation/iterations", "many", "evaluation.iterations"),
    ("network/blocks", 0, "network.blocks"),
    ("methods/rg1/stage", "rg2", "methods.rg1.stage"),
]


@pytest.mark.parametrize(("key", "value", "named"), MISTAKES, ids=[key for key, _, _ in MISTAKES])
def test_a_mistake_stops_before_any_job_and_names_the_key(source, key, value, named):
    said = source.snakemake(fails=True, overlay=changed(key, value))
    assert f"{named}: " in said and "the configuration has mistakes" in said
    assert not (source / "work").exists() and "Traceback" not in said


def test_a_read_only_folder_of_results_stops_before_any_job(source, tmp_path, read_only):
    project = source.copy(tmp_path / "project")
    read_only(project / "results")
    said = project.snakemake(fails=True)
    assert "cannot write into results: " in said and "read-only" in said
    assert not (project / "work").exists()


@pytest.mark.parametrize("target", ["acceleration", "bound", "symmetry"])
def test_what_compares_gradients_stops_before_any_job_without_one(source, tmp_path, target):
    project = source.copy(tmp_path / "project")
    project.configure(lambda config: [config["methods"].pop(method) for method in BY_DESCENT])
    project.configure(lambda config: config.update(ablations={}))
    said = project.snakemake(target, fails=True)
    assert "methods: none of them is by gradient_descent" in said
    assert not (project / "work").exists()


def test_a_test_image_that_is_too_small_stops_before_any_training(source, tmp_path):
    project = source.copy(tmp_path / "project")
    (project / "mine").mkdir()
    Image.new("RGB", (200, 24), "red").save(project / "mine" / "a stripe.png")
    said = project.snakemake(fails=True, overlay=changed("data/test", "folder:mine"))
    assert "mine/a stripe.png is too small for deblur_s1.6" in said
    assert not (project / "work/test/test_set.json").exists()
    assert not (project / "work/test/training").exists()


# --- interruptions --------------------------------------------------------------------------------


def test_a_killed_evaluation_goes_on_where_it_was(project):
    shutil.rmtree(project / "work/test/restored/pnpreg")
    target = "work/test/evaluation/pnpreg.csv"
    options = {
        "overlay": {
            "evaluation": {
                "solver": "adam",
                "iterations": 12,
                "tolerance": None,
                "average": False,
                "x0": "released",
            }
        }
    }

    def kept():
        stamps = (project / "work/test/restored/pnpreg").glob("*/fingerprint")
        return {path: path.stat().st_mtime_ns for path in stamps}

    process = project.start(target, **options)
    wait_for(lambda: len(kept()) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = kept()
    assert 2 <= len(before) < len(PROBLEMS), "the evaluation was over before it was killed"
    assert "--unlock" in project.snakemake(target, fails=True, **options)
    project.snakemake("--unlock", **options)
    project.snakemake(target, **options)
    after = kept()
    assert len(after) == len(PROBLEMS) and before.items() <= after.items()
    results = pd.read_csv(project / target)
    assert list(results.problem_id.unique()) == PROBLEMS and (results.iterations == 11).all()


def test_a_terminated_training_goes_on_where_it_was(project):
    log = project / "work/test/logs/train_denoiser.log"
    log.unlink()
    target = "work/test/models/denoiser/card.json"
    options = {"overlay": changed("stages/denoiser/budget/steps", 300)}
    process = project.start(target, **options)
    wait_for(lambda: log.exists() and log.read_text().count("'step'") > 5, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert process.returncode != 0, "the training was over before it was stopped"
    project.snakemake(target, **options)
    resumed = re.search(r"resumed at step (\d+) of 300", log.read_text())
    assert resumed and int(resumed.group(1)) > 5
    history = pd.read_csv(project / "work/test/training/denoiser/history.csv")
    assert list(history.step) == list(range(300))


# --- snakemake's own tools ------------------------------------------------------------------------


def test_what_ships_is_copied_with_its_cards_and_settings(project):
    """At 16 bits, the networks that `weights` names, and no stage that no method needs."""
    project.snakemake("publish_weights")
    weights = project / "weights"
    assert json.loads((weights / "settings.json").read_text())["run"] == "test"
    card = json.loads((weights / "pnpreg.card.json").read_text())
    assert card["steps"] == 4 and set(card["files"]) == {"pnpreg_G.safetensors"}
    assert (weights / "denoiser_P.safetensors").stat().st_size < 2e5
    assert not (weights / "start.card.json").exists()


def test_a_stage_overfits_one_batch(project):
    project.snakemake("work/test/overfit/rg1.json")
    said = json.loads((project / "work/test/overfit/rg1.json").read_text())
    assert said["stage"] == "rg1" and said["loss_after"] < said["loss_before"]


def test_lint_is_clean(source):
    assert "Congratulations" in source.snakemake("--lint")


@pytest.mark.parametrize("scale", ["paper", "gpu", "overnight gpu_quarter", "overnight"])
def test_dry_runs_of_the_other_scales_plan_everything(source, scale):
    first, *also = (f"config/{name}.yaml" for name in scale.split())
    jobs = source.planned(config=first, also=also)
    trained = {job for job in jobs if job.startswith("train_")}
    stages = {"denoiser", "pnpreg", "mtdeq", "rg1", "deqgd", "rerg"}
    starts = {"paper": set(), "gpu": {"residual"}}
    stages |= starts.get(scale, {"score"})
    assert trained == {f"train_{stage}" for stage in stages}
    assert evaluate(*METHODS) | REPORT <= jobs


def test_the_networks_as_they_are_need_no_training(source):
    jobs = source.planned("tables", "acceleration", config="config/pretrained.yaml")
    assert not [job for job in jobs if job.startswith("train_")]
    assert {f"given_{stage}" for stage in ("pnpreg", "rg1", "deqgd", "rerg")} <= jobs


def test_on_other_photographs_the_regimes_of_rerg_stand_beside_the_tables(source):
    others = "config/other_photographs.yaml"
    jobs = source.planned("tables", config="config/pretrained.yaml", also=[others])
    assert evaluate(*METHODS) <= jobs and not any(job.startswith("train_") for job in jobs)
    also = [others, "config/regimes.yaml"]
    with_trials = source.planned("tables", config="config/pretrained.yaml", also=also)
    trials = {
        f"{name}_{how}" for name in ("rerg", "deqgd") for how in ("found", "squares", "short")
    }
    trials |= {"rerg_scaled"}
    trained = {job for job in with_trials if job.startswith("train_")}
    assert trained == {f"train_{trial}" for trial in trials}
    assert evaluate(*METHODS, *trials) <= with_trials


def test_another_file_or_card_of_given_weights_is_noticed(source, tmp_path):
    project = source.copy(tmp_path / "project")
    card, config = "work/pretrained/models/denoiser/card.json", "config/pretrained.yaml"
    project.snakemake(card, config=config)
    assert project.planned(card, config=config) == set()
    shutil.copyfile(
        project / "weights/mtdeq_P.safetensors", project / "weights/denoiser_P.safetensors"
    )
    assert project.planned(card, config=config) == {"given_denoiser"}
    project.snakemake(card, config=config)
    told = project / "weights/denoiser.card.json"
    told.write_text(told.read_text(encoding="utf-8").replace("9000", "8999"))
    assert project.planned(card, config=config) == {"given_denoiser"}


def test_no_more_jobs_run_at_a_time_than_there_are_processors(source, tmp_path):
    project = source.copy(tmp_path / "project")
    card = "work/pretrained/models/denoiser/card.json"
    said = project.snakemake("--cores", "999", card, config="config/pretrained.yaml")
    assert re.search(rf"Provided cores: {usable_processors()}\b", said)


def test_stages_that_do_not_ship_are_told_by_the_cards_of_those_that_do(source):
    said = source.snakemake("--dry-run", "publish_weights", config="config/overnight.yaml")
    (job,) = re.findall(r"^(?:local)?rule publish_weights:\n((?: .*\n)+)", said, re.M)
    assert "work/overnight/models/score/card.json" in job
    assert "work/overnight/models/mtdeq/card.json" in job
    assert "models/rerg/G.safetensors" in job and "models/rerg/P.safetensors" not in job


def test_snakemakes_report_holds_tables_figures_and_claims(project):
    project.snakemake("--report", "results/snakemake.html")
    report = (project / "results/snakemake.html").read_text(encoding="utf-8")
    for name in ("table1.md", "table2.md", "fig1.png", "fig2.png", "claims.md"):
        assert name in report
