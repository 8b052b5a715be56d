"""What the terminal says of the tables in the end."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from toys import toy_provenance

from rglib.records.provenance import headwords
from rglib.report.evaluations import paper_problems, paper_tables, table_of, write_csv
from rglib.report.headline import headline

LABELS = {"pnpreg": "pnpReG", "rerg": "RERG", "mine": "Mine"}
PAPER = paper_tables().set_index(["method", "problem_id"])["psnr_db"]
MADE_BY = {"configuration": "abc", "solver": "semi_implicit"}
PROVENANCE = replace(toy_provenance("Set5", stand_in_for=None), **MADE_BY)
STAND_IN = replace(toy_provenance(), **MADE_BY)


def write_tables(folder, *, off, problems=None, provenance=PROVENANCE):
    """Ours are the paper's and ``off`` dB more, by method."""
    rows = [
        {
            "table": table_of(problem),
            "method": method,
            "problem_id": problem,
            "psnr_db": PAPER[LABELS[method], problem] + shift,
            "paper_psnr_db": PAPER[LABELS[method], problem],
        }
        for method, shift in off.items()
        for problem in problems or paper_problems()
    ]
    table = pd.DataFrame(rows)
    for number in (1, 2):
        path = folder / f"table{number}.csv"
        write_csv(table[table["table"] == number], path, title="T", provenance=provenance)


def said_in(folder, configuration="abc"):
    return headline(folder, configuration=configuration, labels=LABELS)


def test_it_says_means_differences_departures_and_where_the_tables_are(tmp_path):
    write_tables(tmp_path, off={"rerg": 0.5, "pnpreg": -1.25})
    title, head, ours, paper, difference, unlike, where = said_in(tmp_path).splitlines()
    assert title == "Mean PSNR in dB over 12 problems, on Set5:"
    assert head.split() == ["pnpReG", "RERG"]
    means = [PAPER[name].mean() for name in ("pnpReG", "RERG")]
    assert [float(x) for x in paper.split()[2:]] == pytest.approx(means, abs=0.005)
    assert [float(x) for x in ours.split()[1:]] == pytest.approx(
        [means[0] - 1.25, means[1] + 0.5], abs=0.005
    )
    assert difference.split() == ["difference", "\N{MINUS SIGN}1.25", "+0.50"]
    assert unlike.startswith("Unlike the paper: other solver, smaller network")
    assert where == f"The tables: {tmp_path}/table1.md and {tmp_path}/table2.md"


def test_on_a_stand_in_ours_stand_alone(tmp_path):
    write_tables(tmp_path, off={"rerg": 0.5, "pnpreg": -1.25}, provenance=STAND_IN)
    title, head, ours, aside, unlike, _ = said_in(tmp_path).splitlines()
    assert title == "Mean PSNR in dB over 12 problems, on Embedded:"
    assert head.split() == ["pnpReG", "RERG"] and ours.split()[0] == "ours"
    assert "Set5" in aside and "no comparison" in aside
    assert unlike.startswith("Unlike the paper: stand-in test set")


def test_what_did_not_finish_has_no_mean(tmp_path):
    write_tables(tmp_path, off={"rerg": float("nan"), "pnpreg": 0.0})
    assert said_in(tmp_path).splitlines()[2].split()[-1] == "nan"


def test_tables_of_another_configuration_are_not_told(tmp_path):
    assert said_in(tmp_path) is None
    write_tables(tmp_path, off={"rerg": 0.0})
    assert said_in(tmp_path) is not None
    assert said_in(tmp_path, configuration="def") is None
    record = tmp_path / "table2.csv-metadata.json"
    changed = json.loads(record.read_text())
    changed["dc:provenance"]["configuration"] = "def"
    record.write_text(json.dumps(changed))
    assert said_in(tmp_path) is None


def test_headwords_are_the_loud_ones_once():
    sentences = [
        "OTHER SOLVER of gradient descent: x.",
        "SHORTER TRAINING: a.",
        "SHORTER TRAINING: b.",
    ]
    assert headwords(sentences) == ["other solver", "shorter training"]
    assert headwords(["STAND-IN TEST SET: Mine"]) == ["stand-in test set"]
