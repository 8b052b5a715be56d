"""What docs/extend.md promises: each of the examples, in the tables and figures it belongs to."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import skimage.data
from PIL import Image
from test_workflow import METHODS, REPORT, ROOT, TABLES, Project, evaluate

pytestmark = pytest.mark.slow

OVERLAYS = sorted(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.yaml"))
AT_ONCE = {"overlay": {"run": "examples"}, "also": OVERLAYS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All examples at once, one configuration over the other."""
    project = Project.copied(tmp_path_factory.mktemp("project"))
    (project / "my/photographs").mkdir(parents=True)
    for name in ("cat", "coffee"):
        photograph = Image.fromarray(getattr(skimage.data, name)()[:96, :128])
        photograph.save(project / f"my/photographs/{name}.png")
    project.snakemake("all", "models", **AT_ONCE)
    return project


def planned(project):
    return project.planned(**AT_ONCE)


def test_the_seventh_method_is_the_last_row_of_the_tables(finished):
    for table in (1, 2):
        csv = pd.read_csv(finished / f"results/table{table}.csv")
        assert list(dict.fromkeys(csv.method)) == [*METHODS, "huber"]
        assert list(dict.fromkeys(csv.problem_id)) == TABLES[table]
        assert csv[csv.method == "huber"].filter(like="paper_").isna().all(axis=None)
        assert "| Huber | " in (finished / f"results/table{table}.md").read_text()


def test_the_seventh_method_has_a_curve_and_is_in_figure_2(finished):
    convergence = pd.read_csv(finished / "results/convergence.csv")
    curve = convergence[
        (convergence.method == "huber") & (convergence.problem_id == "completion90")
    ]
    assert list(curve.iteration) == [0, 1, 2] and curve.psnr_db.notna().all()
    assert (finished / "results/fig2.pdf").stat().st_size > 1000


def test_the_problem_has_a_table_of_its_own_without_the_papers_values(finished):
    csv = pd.read_csv(finished / "results/table3.csv")
    assert list(csv.method) == [*METHODS, "huber"] and set(csv.problem_id) == {"motion9"}
    text = (finished / "results/table3.md").read_text()
    assert "motion9" in text and "*ours*" in text
    assert "*the paper*" not in text and "on Set5" not in text.partition("---\n")[0]


def test_the_network_is_trained_and_named(finished):
    card = json.loads((finished / "work/examples/models/rerg/card.json").read_text())
    assert card["network"]["G"] == "examples.dncnn:StackedGradient"
    assert "OTHER NETWORK" in (finished / "results/table1.md").read_text()


def test_the_folder_is_the_test_set_and_the_tables_say_so(finished):
    results = pd.read_csv(finished / "results/results.csv")
    assert set(results.image) == {"cat", "coffee"}
    assert "OTHER TEST SET" in (finished / "results/table1.md").read_text()


def test_the_solver_is_named(finished):
    text = (finished / "results/table1.md").read_text()
    assert "OTHER SOLVER of gradient descent: examples.heavy_ball:HeavyBall" in text


def test_the_page_of_the_report_has_the_method_and_the_problem(finished):
    page = (finished / "results/report.html").read_text(encoding="utf-8")
    assert "Huber" in page and "motion9" in page


def test_the_method_restores_a_photograph(finished):
    command = "restore my/photographs/cat.png --problem deblur_s1.6 -o restored.png"
    own = "--method huber --models work/examples/models"
    done = subprocess.run(
        [sys.executable, "-m", "rglib", *command.split(), *own.split()],
        cwd=finished.folder,
        env=os.environ | {"PYTHONPATH": str(finished.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (finished / "restored.png").is_file()


def test_changed_code_of_your_own_reruns_what_depends_on_it(finished, tmp_path):
    report = {*REPORT, "make_tables table=3"}
    assert planned(finished) == set()
    objective = finished.copy(tmp_path / "objective")
    objective.append("examples/huber.py", "CHANGED = 1")
    assert planned(objective) == {"train_huber", *evaluate("huber"), *report}
    solver = finished.copy(tmp_path / "solver")
    solver.append("examples/heavy_ball.py", "CHANGED = 1")
    trained = {f"train_{stage}" for stage in ("mtdeq", "rg1", "deqgd", "rerg", "huber")}
    by_descent = [method for method in (*METHODS, "huber") if method != "gauss"]  # or trained so
    assert planned(solver) == {*trained, *evaluate(*by_descent), *report}
    problem = finished.copy(tmp_path / "problem")
    problem.append("examples/motion.py", "CHANGED = 1")
    assert planned(problem) == {"observations", *evaluate(*METHODS, "huber"), *report}
    comment = finished.copy(tmp_path / "comment")
    for path in (comment / "examples").glob("*.py"):
        comment.append(path, "# changed")
    assert planned(comment) == set()
