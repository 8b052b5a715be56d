import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_workflow import Project
from toys import toy_provenance

from rglib import paper
from rglib.files import replacing
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.report.evaluations import (
    CONVERGENCE_COLUMNS,
    CURVE_COLUMNS,
    RESULT_COLUMNS,
    SPREAD_COLUMNS,
    TABLE_COLUMNS,
    ResultsError,
    convergence,
    latex_table,
    markdown_table,
    number_of,
    paper_problems,
    paper_tables,
    problem_title,
    read_curves,
    read_results,
    summarise,
    table_columns,
    write_csv,
    write_text,
)

LABELS = dict(paper.METHODS)
IMAGES = ("one", "two")
PROVENANCE = toy_provenance("Embedded_100%")
SET5 = toy_provenance(paper.TEST_SET, stand_in_for=None)


def evaluation(method, problems=None, *, seed=0, **changes):
    """The paper's numbers as if they were the means of ours: one image over, one under."""
    theirs = paper_tables().set_index(["method", "problem_id"])
    rows = []
    for problem in problems or paper_problems():
        published = theirs.loc[(paper.METHODS.get(method, "RERG"), problem)]
        for image, sign in zip(IMAGES, (1, -1), strict=True):
            psnr, ssim = published["psnr_db"] + sign, published["ssim"] + 0.01 * sign
            values = (20.0, 0.5, psnr, ssim, psnr + 0.5, 40, 64, "finished", 0.1, 1e-3, 1.25)
            rows.append((method, seed, problem, image, 32, 48, *values))
    return pd.DataFrame(rows, columns=RESULT_COLUMNS).assign(**changes)


def write(frames, folder):
    paths = [folder / f"{number}.csv" for number in range(len(frames))]
    for frame, path in zip(frames, paths, strict=True):
        frame.to_csv(path, index=False)
    return paths


@pytest.fixture
def read(tmp_path):
    """Write evaluations, read them as results."""

    def write_and_read(*frames, methods=tuple(paper.METHODS), problems=None):
        problems = problems or paper_problems()
        seeds = methods if isinstance(methods, dict) else {method: [0] for method in methods}
        return read_results(write(frames, tmp_path), methods=seeds, problems=problems)

    return write_and_read


def all_methods():
    return [evaluation(method) for method in paper.METHODS]


def diverge(frame, problem, image):
    bad = (frame["problem_id"] == problem) & (frame["image"] == image)
    frame.loc[bad, ["psnr_db", "ssim"]] = math.inf
    frame.loc[bad, "outcome"] = "diverged"
    return frame


def test_results_keep_every_row_in_the_order_of_the_configuration(read):
    results = read(*reversed(all_methods()))
    assert list(results) == RESULT_COLUMNS
    assert len(results) == 6 * 12 * 2
    assert list(dict.fromkeys(results["method"])) == list(paper.METHODS)
    assert list(results["image"][:2]) == list(IMAGES)


def test_image_names_stay_text(read):
    frame = evaluation("rerg").replace({"image": {"one": "001", "two": "002"}})
    assert set(read(frame, methods=["rerg"])["image"]) == {"001", "002"}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (evaluation("rg1"), "method rerg"),
        (evaluation("rerg").iloc[2:], "missing, first: method rerg, seed 0, problem completion80"),
        (evaluation("rerg").iloc[1:], "missing, first: .* image one"),
        (pd.concat([evaluation("rerg")] * 2), "24 of 24 results there twice"),
        (pd.concat([evaluation("rerg"), evaluation("rg1")]), "not configured, first: method rg1"),
        (evaluation("rerg").drop(columns="ssim"), "column ssim is missing"),
        (evaluation("rerg", outcome="tired"), "tired.* is none of finished"),
        (evaluation("rerg", psnr_db=math.nan), "'finished' with PSNR nan"),
        (evaluation("rerg").iloc[:0], "no rows"),
    ],
)
def test_faulty_evaluations_are_refused_by_name(read, frame, message):
    with pytest.raises(ResultsError, match=message):
        read(frame, methods=["rerg"])


def test_an_exact_restoration_has_an_infinite_psnr(read):
    frame = evaluation("rerg")
    frame.loc[0, "psnr_db"] = math.inf  # of an image that is black all over
    summary = summarise(read(frame, methods=["rerg"]))
    assert summary.loc[0, "psnr_db"] == math.inf and summary.loc[0, "converged"] == 1
    text = markdown_table(summary, table=1, labels=LABELS, provenance=PROVENANCE)
    assert "inf" in text.split("*the paper*")[0] and "diverged" not in text


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"nothing\.csv: no such file"):
        read_results([tmp_path / "nothing.csv"], methods={"rerg": [0]}, problems=["completion80"])


def test_summary_is_tidy_and_equals_the_paper(read):
    summary = summarise(read(*all_methods()))
    assert list(summary) == [*TABLE_COLUMNS, *SPREAD_COLUMNS, "restorations"]
    assert len(summary) == 72
    np.testing.assert_allclose(summary["psnr_db"], summary["paper_psnr_db"])
    np.testing.assert_allclose(summary["ssim"], summary["paper_ssim"])
    assert set(summary["seconds"]) == {2.5} and set(summary["converged"]) == {1.0}
    assert (summary.loc[summary["table"] == 2, "problem_id"].str[:2] == "sr").all()
    theirs = paper_tables()
    key = ["table", "problem_id"]
    assert set(map(tuple, summary[key].values)) == set(map(tuple, theirs[key].values))


def test_an_added_method_has_no_published_value(read):
    results = read(evaluation("rerg"), evaluation("new"), methods=["rerg", "new"])
    summary = summarise(results).set_index("method")
    assert summary.loc["new", ["paper_psnr_db", "paper_ssim"]].isna().all(axis=None)
    text = markdown_table(
        summary.reset_index(),
        table=1,
        labels={"rerg": "RERG", "new": "New_1"},
        provenance=SET5,
    )
    assert text.count("New_1") == 3 and "nan" not in text


def test_a_diverged_image_is_never_averaged_away(read):
    frames = [evaluation("rg1"), diverge(evaluation("rerg"), "completion90", "two")]
    summary = summarise(read(*frames, methods=["rg1", "rerg"]))
    cell = summary.set_index(["method", "problem_id"]).loc[("rerg", "completion90")]
    assert math.isnan(cell["psnr_db"]) and math.isnan(cell["ssim"])
    assert cell["converged"] == 0.5
    for layout in (markdown_table, latex_table):
        text = layout(summary, table=1, labels=LABELS, provenance=PROVENANCE)
        assert text.count("diverged (1 of 2)") == 1
        assert "nan" not in text and "inf" not in text
        assert "diverged" not in layout(summary, table=2, labels=LABELS, provenance=PROVENANCE)


def test_markdown_marks_the_best_of_ours_only(read):
    frames = [evaluation("rerg"), evaluation("rg1")]
    frames[0]["psnr_db"] += 10  # ours, far above the paper's
    summary = summarise(read(*frames, methods=["rerg", "rg1"]))
    text = markdown_table(summary, table=1, labels=LABELS, provenance=SET5)
    ours, rest = text.split("*the paper*")
    assert "| RERG | **40.29** \\| 0.894 | **36.86** \\| 0.830 |" in ours
    assert "| RG1 | 30.58 \\| **0.899** | 27.18 \\| **0.837** |" in ours
    assert "**" not in rest
    assert "| RERG | 30.29 \\| 0.894 |" in rest
    assert "| RERG | +10.00 \\| +0.000 |" in rest


def test_equal_values_are_both_best(read):
    frames = [evaluation("rerg"), evaluation("new")]
    summary = summarise(read(*frames, methods=["rerg", "new"]))
    text = latex_table(
        summary, table=2, labels={"rerg": "RERG", "new": "New"}, provenance=PROVENANCE
    )
    assert text.count(r"\textbf{") == 2 * 2 * 8


def test_wide_table_comes_in_blocks_of_four(read):
    summary = summarise(read(*all_methods()))
    text = markdown_table(summary, table=2, labels=LABELS, provenance=PROVENANCE)
    header = [line for line in text.splitlines() if line.startswith("| PSNR")]
    assert len(header) == 2
    assert all(problem_title(p) in text for p in paper_problems() if p.startswith("sr"))
    assert {
        line.replace(r"\|", "").count("|") for line in text.splitlines() if line[:1] == "|"
    } == {6}


def test_a_table_without_problems_is_still_written(read):
    results = read(
        evaluation("rerg", ["completion90"]), methods=["rerg"], problems=["completion90"]
    )
    text = markdown_table(summarise(results), table=2, labels=LABELS, provenance=PROVENANCE)
    assert "| PSNR" not in text and "STAND-IN" in text


def test_latex_is_escaped_and_balanced(read):
    summary = summarise(read(*all_methods()))
    labels = LABELS | {"rerg": r"R&D_100%#$\{~^"}
    text = latex_table(summary, table=2, labels=labels, provenance=PROVENANCE)
    escaped = r"R\&D\_100\%\#\$\textbackslash{}\{\textasciitilde{}\textasciicircum{} & "
    assert text.count(escaped) == 2 * 2  # two blocks of ours and the paper
    assert r"Embedded\_100\%" in text
    plain = text.replace(r"\{", "").replace(r"\}", "").replace(r"\$", "")
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    for name in ("table*", "tabular", "flushleft"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {4}
    assert text.isascii()


def test_every_file_names_the_stand_in(read, tmp_path):
    summary = summarise(read(*all_methods()))
    for layout in (markdown_table, latex_table):
        text = layout(summary, table=1, labels=LABELS, provenance=PROVENANCE)
        assert "STAND-IN TEST SET" in text[-1500:] and "STAND-IN" in text[:800]
    write_csv(summary[TABLE_COLUMNS], tmp_path / "t.csv", title="T", provenance=PROVENANCE)
    metadata = json.loads((tmp_path / "t.csv-metadata.json").read_text())
    assert metadata["dc:provenance"]["stand_in_for"] == "Set5"
    assert metadata["url"] == "t.csv"
    assert [c["name"] for c in metadata["tableSchema"]["columns"]] == TABLE_COLUMNS
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == ",".join(TABLE_COLUMNS)
    assert sorted(p.name for p in tmp_path.glob("t.*")) == ["t.csv", "t.csv-metadata.json"]


def test_the_first_sentence_says_what_was_compared_and_what_came_of_it(read):
    frames = [evaluation("rerg"), evaluation("rg1")]
    frames[0]["psnr_db"] -= 1.5
    frames[1]["psnr_db"] += 0.25
    summary = summarise(read(*frames, methods=["rerg", "rg1"]))
    said = (
        "2 methods on 4 problems, on Set5: 0.62 dB below the paper's mean PSNR, from 1.50 dB below "
        "(RERG) to 0.25 dB above (RG1)."
    )
    markdown = markdown_table(summary, table=1, labels=LABELS, provenance=SET5)
    assert markdown.splitlines()[2] == f"**{said}**"
    assert said in latex_table(summary, table=1, labels=LABELS, provenance=SET5)
    frames[0] = diverge(frames[0], "completion90", "two")
    summary = summarise(read(*frames, methods=["rerg", "rg1"]))
    text = markdown_table(summary, table=1, labels=LABELS, provenance=SET5)
    assert "no mean, as restorations diverged in 1 of 8 cells" in text.splitlines()[2]


def test_one_is_not_said_in_the_plural():
    assert [number_of(n, "problem") for n in (0, 1, 2)] == ["0 problems", "1 problem", "2 problems"]


@pytest.mark.parametrize("layout", [markdown_table, latex_table])
@pytest.mark.parametrize("title", ["Embedded", "Set5 (left out: bird.png)"])
def test_on_other_images_there_is_no_difference_from_the_paper(read, layout, title):
    summary = summarise(read(*all_methods()))
    other = toy_provenance(title, stand_in_for=None)
    for table in (1, 2):
        text = layout(summary, table=table, labels=LABELS, provenance=other)
        assert "difference" not in text and "not compared with the paper's" in text
        assert not re.search(r"[+\N{MINUS SIGN}]\d|\$-\$\d", text)
        assert layout(summary, table=table, labels=LABELS, provenance=SET5).count("+0.00") > 0


def test_how_the_run_is_unlike_the_paper_is_said_below_the_first_table_alone(read):
    summary = summarise(read(*all_methods()))
    first, second = (
        markdown_table(summary, table=table, labels=LABELS, provenance=PROVENANCE)
        for table in (1, 2)
    )
    assert first.count("FEWER ITERATIONS") == 1 and "SMALLER NETWORK" in first
    assert "FEWER ITERATIONS" not in second and "below table 1 (table1.md)" in second
    for text in (first, second):
        assert "Unlike the paper: stand-in test set, fewer iterations, smaller network" in text


def test_every_column_is_described():
    for column in (*RESULT_COLUMNS, *TABLE_COLUMNS, *SPREAD_COLUMNS, *CONVERGENCE_COLUMNS):
        assert COLUMN_DESCRIPTIONS[column]


def of_seeds(*seeds):
    """RERG for some seeds, each with its number of dB over the paper's, beside a given MTDEQ."""
    frames = [evaluation("rerg", seed=seed) for seed in seeds]
    for frame in frames:
        frame["psnr_db"] += frame["seed"]
    return [*frames, evaluation("mtdeq")]


def test_several_seeds_have_their_mean_and_standard_deviation(read):
    methods = {"rerg": [0, 1, 5], "mtdeq": [0]}
    summary = summarise(read(*of_seeds(0, 1, 5), methods=methods)).set_index("method")
    rerg, mtdeq = summary.loc["rerg"], summary.loc["mtdeq"]
    np.testing.assert_allclose(rerg["psnr_db"], rerg["paper_psnr_db"] + 2)
    np.testing.assert_allclose(rerg["psnr_std_db"], math.sqrt((4 + 1 + 9) / 2))
    np.testing.assert_allclose(rerg["ssim_std"], 0, atol=1e-12)
    assert set(rerg["seeds"]) == {3} and set(mtdeq["seeds"]) == {1}
    assert mtdeq["psnr_std_db"].isna().all()
    assert table_columns(summary.reset_index()) == TABLE_COLUMNS + SPREAD_COLUMNS


def test_a_table_of_several_seeds_says_the_spread_and_where_there_is_none(read):
    summary = summarise(read(*of_seeds(0, 2), methods={"rerg": [0, 2], "mtdeq": [0]}))
    provenance = replace(SET5, seeds=(0, 2))
    text = markdown_table(summary, table=1, labels=LABELS, provenance=provenance)
    assert "± is the standard deviation over 2 seeds" in text and "seeds 0, 2" in text
    ours, rest = text.split("*the paper*")
    assert "| RERG | **31.29** ± 1.41 \\| 0.894 ± 0.000 |" in ours
    assert "| MTDEQ | 30.72 \\| **0.897** |" in ours
    assert "±" not in rest.split("---")[0]
    latex = latex_table(summary, table=1, labels=LABELS, provenance=provenance)
    assert r"\textbf{31.29} $\pm$ 1.41" in latex and latex.isascii()


def test_one_diverged_seed_leaves_no_mean(read):
    frames = of_seeds(0, 1)
    diverge(frames[1], "completion90", "two")
    summary = summarise(read(*frames, methods={"rerg": [0, 1], "mtdeq": [0]}))
    cell = summary.set_index(["method", "problem_id"]).loc[("rerg", "completion90")]
    assert math.isnan(cell["psnr_db"]) and math.isnan(cell["psnr_std_db"])
    text = markdown_table(summary, table=1, labels=LABELS, provenance=PROVENANCE)
    assert "diverged (1 of 4)" in text


def test_a_missing_seed_is_refused_by_name(read):
    with pytest.raises(ResultsError, match="24 of 72 results missing, first: method rerg, seed 7"):
        read(*of_seeds(0), methods={"rerg": [0, 7], "mtdeq": [0]})


def curves(values, seed=0):
    """Curves of one method on one problem from {image: values}."""
    rows = [
        ("rerg", seed, "completion90", image, iteration, value)
        for image, course in values.items()
        for iteration, value in enumerate(course)
    ]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ({"one": [10, 20, 30], "two": [12, 24, 30]}, [11, 22, 30]),
        ({"one": [10, 20, 30], "two": [12]}, [11, math.nan, math.nan]),
        ({"one": [10, 20, -math.inf], "two": [12, 24, 30]}, [11, 22, math.nan]),
    ],
)
def test_convergence_is_the_mean_over_all_images(tmp_path, values, mean):
    paths = write([curves(values)], tmp_path)
    read = read_curves(paths, methods=["rerg"], problems=["completion90"])
    result = convergence(read)
    assert list(result) == CONVERGENCE_COLUMNS
    assert list(result["iteration"]) == [0, 1, 2]
    np.testing.assert_array_equal(result["psnr_db"], mean)


def test_convergence_is_the_mean_over_all_seeds(tmp_path):
    paths = write([curves({"one": [10, 20]}), curves({"one": [12, 30]}, seed=1)], tmp_path)
    result = convergence(read_curves(paths, methods=["rerg"], problems=["completion90"]))
    np.testing.assert_array_equal(result["psnr_db"], [11, 25])


def test_curves_of_other_methods_are_left_out(tmp_path):
    paths = write([curves({"one": [1.0]})], tmp_path)
    read = read_curves(paths, methods=["rg1"], problems=["completion90"])
    assert convergence(read).empty and list(convergence(read)) == CONVERGENCE_COLUMNS


@pytest.mark.parametrize(
    ("problem", "title"),
    [
        ("sr3_gaussian_n0.01", "SR ×3 gaussian, σ = 0.01"),
        ("completion90", "completion, 90 % missing"),
        ("deblur_s1.6", "deblurring, blur 1.6 px"),
        ("other", "other"),
    ],
)
def test_titles(problem, title):
    assert problem_title(problem) == title


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text("old", path, title="T", provenance=PROVENANCE)
    with pytest.raises(RuntimeError), replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.txt", "a.txt-metadata.json"]


# --- remedies -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project.copied(tmp_path_factory.mktemp("typed") / "project")


def test_what_writes_a_missing_evaluation_is_planned_as_typed(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    with pytest.raises(ResultsError) as caught:
        read_results([Path("work/test/evaluation/rg1.csv")], methods={"rg1": [0]}, problems=["a"])
    (typed,) = re.findall(r"`snakemake (\S+)` writes it, with the same --config", str(caught.value))
    assert "evaluate method=rg1" in project.planned(typed)


def test_the_option_that_evaluates_again_is_one_of_snakemake_and_names_a_rule(read, project):
    with pytest.raises(ResultsError) as caught:
        read(*all_methods()[1:])
    (typed,) = re.findall(r"evaluate it again, with (--forcerun \w+)", str(caught.value))
    assert "evaluate method=rg1" in project.planned("results/results.csv", *typed.split())
    keys = re.findall(r"`(\w+)`", str(caught.value))
    assert keys == ["methods", "seeds", "problems"]
    configuration = yaml.safe_load((project / "config.yaml").read_text())
    assert {"methods", "seeds", "problems"} <= configuration.keys()
