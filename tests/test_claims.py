import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import toy_provenance

from rglib import paper
from rglib.__main__ import main
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.report.claims import (
    CLAIM_COLUMNS,
    Numbers,
    check_claims,
    claims_markdown,
    margin_text,
    papers_claims,
    said_of_claims,
)
from rglib.report.evaluations import (
    CONVERGENCE_COLUMNS,
    RESULT_COLUMNS,
    paper_problems,
    paper_tables,
    summarise,
)

ROOT = Path(__file__).parent.parent
IDS = {name: method for method, name in paper.METHODS.items()}
SPEEDS = {"pnpreg": 20, "rg1": 15, "deqgd": 8, "rerg": 10}  # iterations


def results(change=None):
    """The paper's numbers as if they were ours on one image, with ``{(method, problem): dB}``."""
    frame = paper_tables().replace({"method": IDS})
    frame = frame.assign(image="one", outcome="finished", iterations=64, seconds=1.0)
    frame = frame.reindex(columns=RESULT_COLUMNS, fill_value=0.0)
    for (method, problem), psnr in (change or {}).items():
        cell = (frame["method"] == method) & (frame["problem_id"] == problem)
        finite = math.isfinite(psnr)
        frame.loc[cell, "psnr_db"] = psnr
        frame.loc[cell, "outcome"] = "finished" if finite else "diverged"
    return frame


def convergence(speeds=SPEEDS, ends=None):
    rows = [
        (method, "completion90", i, 10.65 + (end - 10.65) * (1 - math.exp(-i / speed)))
        for method, speed in speeds.items()
        for end in [(ends or {}).get(method, 26.0)]
        for i in range(129)
    ]
    return pd.DataFrame(rows, columns=CONVERGENCE_COLUMNS)


def check(frame=None, curves=None):
    frame = results() if frame is None else frame
    curves = convergence() if curves is None else curves
    return check_claims(Numbers.of_run(summarise(frame), curves)).set_index("claim")


def test_the_papers_numbers_bear_out_the_papers_claims():
    checked = check()
    assert list(checked.reset_index()) == CLAIM_COLUMNS
    assert set(checked["holds"]) == {"yes"}
    tables = checked[~checked.index.str.endswith("rises_faster")]
    assert set(tables["paper_holds"]) == {"yes"}
    assert list(tables["ours"]) == list(tables["paper"]) == list(tables["expected"])
    margins = {
        "rerg_reaches_deqgd": (0.02, "sr3_bicubic_n0"),  # the eleventh best of the twelve
        "rerg_beats_pnpreg": (0.07, "sr3_gaussian_n0"),
        "rerg_near_the_better": (0.0, "completion90"),
        "rg1_best_on_completion": (0.22, "completion80"),
        "deqgd_fails": (1.52, "completion90"),
    }
    for claim, (margin, where) in margins.items():
        assert checked.at[claim, "margin"] == pytest.approx(margin, abs=1e-8)
        assert checked.at[claim, "where"] == where


def test_means_over_the_twelve_problems_are_those_of_the_specification():
    numbers = Numbers.of_paper()
    means = {
        "gauss": (31.56, 0.8851),
        "mtdeq": (32.23, 0.8929),
        "pnpreg": (32.02, 0.8955),
        "rg1": (31.97, 0.8897),
        "deqgd": (31.95, 0.8961),
        "rerg": (32.28, 0.8984),
    }
    for method, (psnr, ssim) in means.items():
        assert numbers.values["psnr_db"][method].mean() == pytest.approx(psnr, abs=0.0051)
        assert numbers.values["ssim"][method].mean() == pytest.approx(ssim, abs=0.000051)


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        ("rerg_reaches_deqgd", {("deqgd", "sr2_bicubic_n0"): 35.62}),
        ("rerg_beats_pnpreg", {("pnpreg", "sr3_gaussian_n0"): 31.67}),
        ("rerg_near_the_better", {("rg1", "completion90"): 27.19}),
        ("rg1_best_on_completion", {("rg1", "completion80"): 30.36}),
        ("deqgd_fails", {("deqgd", "completion90"): 25.87}),
        ("rerg_best_mean_psnr", {("mtdeq", "completion80"): 30.72 + 12 * 0.051}),
        ("rerg_best_mean_psnr", {("rerg", "completion90"): -math.inf}),
        ("deqgd_fails", {("rerg", "completion90"): math.nan}),
    ],
)
def test_one_number_turns_a_claim(claim, change):
    checked = check(results(change))
    assert checked.at[claim, "holds"] == "no"
    assert checked.at[claim, "paper_holds"] == "yes"


def test_the_ssim_claim_turns_too():
    frame = results()
    frame.loc[frame["method"] == "deqgd", "ssim"] += 0.0024
    assert check(frame).at["rerg_best_mean_ssim", "holds"] == "no"


def test_a_diverged_method_loses():
    change = {("deqgd", "completion90"): math.nan, ("rg1", "completion90"): math.nan}
    checked = check(results(change))
    assert checked.at["deqgd_fails", "holds"] == "yes"
    assert checked.at["deqgd_fails", "margin"] == math.inf
    assert checked.at["rg1_best_on_completion", "holds"] == "no"
    everything = {(m, p): math.nan for m in paper.METHODS for p in paper_problems()}
    none_finished = check(results(everything))
    assert set(none_finished["holds"][:7]) == {"no"}


def test_rising_faster_is_measured_in_iterations():
    checked = check()
    # 1 - exp(-i / speed) = 1/2 of what pnpReG has gained after 128 iterations
    level = (1 - math.exp(-128 / 20)) / 2
    expected = (20 - 8) * -math.log(1 - level)
    assert checked.at["deqgd_rises_faster", "margin"] == pytest.approx(expected, abs=0.05)
    slow = check(curves=convergence(SPEEDS | {"rerg": 21}))
    assert slow.at["rerg_rises_faster", "holds"] == "no"
    never = check(curves=convergence(ends={"deqgd": 12.0}))
    assert never.at["deqgd_rises_faster", "holds"] == "no"
    assert never.at["deqgd_rises_faster", "margin"] == -math.inf


def test_words_and_signs_agree():
    """A claim that holds has something to spare, one that fails lacks something, above is above."""
    for deqgd in (24.34, 26.18, 26.86, 30.0):
        checked = check(results({("deqgd", "completion90"): deqgd}))
        one, rerg = checked.loc["deqgd_fails"], 26.86
        word = "above" if rerg >= deqgd else "below"
        assert one["ours"] == f"{abs(rerg - deqgd):.2f} dB {word} DEQGD"
    for change in ({}, {("deqgd", "sr2_bicubic_n0"): 36.0}, {("rg1", "completion90"): 27.6}):
        evaluable = check(results(change)).query("holds != 'not evaluable'")
        held = evaluable["holds"] == "yes"
        assert (evaluable["margin"][held] >= 0).all() and (evaluable["margin"][~held] <= 0).all()


def test_ours_and_the_papers_have_one_denominator():
    problems = {"rerg_reaches_deqgd": 12, "rerg_beats_pnpreg": 10, "rg1_best_on_completion": 2}
    checked = check(results({("rerg", "completion90"): 20.0}))
    for claim, row in checked.iterrows():
        for said in (row["expected"], row["ours"], row["paper"]):
            if " of " in said and claim in problems:
                assert said.endswith(f" of {problems[claim]}"), claim


def test_absent_numbers_are_said_to_be_absent():
    frame = results()
    checked = check(frame[frame["method"] != "deqgd"], convergence().iloc[:0])
    absent = checked[checked["holds"] == "not evaluable"]
    assert "rerg_beats_pnpreg" not in absent.index and len(absent) == 8
    assert absent["ours"].str.contains("no result of method deqgd|no curve of").all()
    fewer = check(frame[frame["problem_id"] != "sr2_bicubic_n0"])
    assert "no result of problem sr2_bicubic_n0" in fewer.at["rerg_best_mean_psnr", "ours"]
    assert fewer.at["deqgd_fails", "holds"] == "yes"
    sinking = check(curves=convergence(ends={"pnpreg": 5.0}))
    assert "no better than its start" in sinking.at["deqgd_rises_faster", "ours"]


def test_markdown_tells_all_and_names_the_stand_in():
    provenance = toy_provenance()
    checked = check(results({("deqgd", "completion90"): math.nan})).reset_index()
    text = claims_markdown(checked, provenance=provenance)
    images = "the STAND-IN test set Embedded (not Set5)"
    assert f"**9 of the paper's 9 claims hold on {images}; 0 do not.**" in text
    assert "| margin on ours " in text and "| margin on the paper's " in text
    assert all(claim.statement in text for claim in papers_claims().claims)
    assert "+0.02 dB (SR ×3 bicubic, σ = 0)" in text
    assert "+infinite (completion, 90 % missing)" in text
    assert "DEQGD did not finish" in text and "nan" not in text
    assert text.count("FEWER ITERATIONS") == 0 and "below table 1 (table1.md)" in text


@pytest.mark.parametrize(
    ("yes", "no", "others", "said"),
    [
        (4, 5, 0, "4 of the paper's 9 claims hold on Set5; 5 do not"),
        (1, 8, 0, "1 of the paper's 9 claims holds on Set5; 8 do not"),
        (6, 1, 2, "6 of the paper's 9 claims hold on Set5; 1 does not; 2 cannot be evaluated"),
    ],
)
def test_the_count_of_claims_is_a_sentence(yes, no, others, said):
    words = ["yes"] * yes + ["no"] * no + ["not evaluable"] * others
    assert said_of_claims(pd.Series(words), images="Set5") == said


@pytest.mark.parametrize(
    ("margin", "unit", "said"),
    [
        (-0.003, "dB", "−0.003 dB (here)"),
        (-0.03, "dB", "−0.03 dB (here)"),
        (1e-9, "dB", "+0.00 dB (here)"),
        (0.0, "dB", "+0.00 dB (here)"),
        (-0.841, "iterations", "−0.84 iterations (here)"),
    ],
)
def test_a_margin_has_a_digit_for_its_sign(margin, unit, said):
    assert margin_text(margin, unit, "here") == said


def test_claims_have_names_of_their_own_and_described_columns():
    claims = papers_claims().claims
    assert len({claim.name for claim in claims}) == len(claims) == 9
    assert set(CLAIM_COLUMNS) <= set(COLUMN_DESCRIPTIONS)
    assert np.isfinite(Numbers.of_paper().values["psnr_db"]).all(axis=None)


# --- claims of any file on any table --------------------------------------------------------------

PAGE = (ROOT / "docs/claims.md").read_text()
BENCH, CLAIMS_OF_PAGE, OUTPUT = (
    block.partition("```")[0] for block in PAGE.split("```text\n")[1:4]
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `rglib claims` in a folder with the files of the page; its status and what it said."""
    (tmp_path / "bench.csv").write_text(BENCH)
    (tmp_path / "claims.yaml").write_text(CLAIMS_OF_PAGE)
    monkeypatch.chdir(tmp_path)

    def call(line):
        try:
            status = main(["claims", *line.split()])
        except SystemExit as stopped:
            status = stopped.code
        return status, "".join(capsys.readouterr())

    return call


def test_the_page_is_true_word_for_word(run):
    status, text = run("bench.csv --claims claims.yaml")
    assert status == 0
    assert text.split() == OUTPUT.split()


def verdicts(run, line, status):
    found, text = run(f"{line} --json")
    assert found == status, text
    return {one["claim"]: one for one in json.loads(text)}


@pytest.mark.parametrize(
    ("claim", "old", "new", "margin"),
    [
        ("better_than_tv", "TV,sr,26.9", "TV,sr,26.96", -0.01),
        ("rerg_on_deblurring", "RERG,deblur,29.3", "RERG,deblur,29.1", 0.0),
        ("rerg_lpips", "DPIR,deblur,29.1,0.21", "DPIR,deblur,29.1,0.17", 0.0),
    ],
)
def test_one_number_turns_a_claim_of_your_own(run, tmp_path, claim, old, new, margin):
    (tmp_path / "bench.csv").write_text(BENCH.replace(old, new))
    found = verdicts(run, "bench.csv --claims claims.yaml", 1)
    assert found[claim]["holds"] is False and found[claim]["margin"] == pytest.approx(margin)
    assert sum(one["holds"] is False for one in found.values()) == 1


def test_what_has_no_finite_value_has_lost_lower_or_higher(run, tmp_path):
    text = BENCH.replace("RERG,deblur,29.3,0.19", "RERG,deblur,inf,").replace(
        "TV,sr,26.9", "TV,sr,"
    )
    (tmp_path / "bench.csv").write_text(text)
    found = verdicts(run, "bench.csv --claims claims.yaml", 1)
    assert found["rerg_on_deblurring"]["holds"] is False
    assert found["rerg_on_deblurring"]["margin"] == "-infinite"
    assert found["rerg_lpips"]["holds"] is False and found["rerg_lpips"]["margin"] == "-infinite"
    assert found["better_than_tv"]["holds"] is True


def test_rows_of_images_are_averaged(run, tmp_path):
    rows = [f"{line[:-1]}9" for line in BENCH.splitlines()[1:]]
    doubled = [line.replace("29.3", "28.7") for line in rows] + rows
    (tmp_path / "bench.csv").write_text("\n".join([BENCH.splitlines()[0], *doubled]) + "\n")
    found = verdicts(run, "bench.csv --claims claims.yaml", 1)
    assert found["rerg_on_deblurring"]["margin"] == pytest.approx(29.0 - 29.1)


def test_means_over_other_images_are_refused(run, tmp_path):
    rows = (ROOT / "results/published/embedded/results.csv").read_text().splitlines()
    (tmp_path / "cut.csv").write_text("\n".join(rows[:-2]) + "\n")
    status, said = run(f"{tmp_path}/cut.csv")
    assert status == 2 and "of gauss and the images baby, bird, butterfly of rerg" in said
    (tmp_path / "counted.csv").write_text(
        "method,problem_id,psnr_db\nours,a,30\nours,a,31\nnew,a,29\n"
    )
    status, said = run(f"{tmp_path}/counted.csv")
    assert status == 2 and "a has 2 rows of ours and 1 rows of new" in said


def test_the_published_results_have_the_published_verdicts(run):
    """The record was made by other code than this, before claims were data."""
    published = ROOT / "results/published/embedded"
    before = pd.read_csv(published / "claims.csv").set_index("claim")
    stated = {claim.name: claim for claim in papers_claims().claims}
    line = f"{published / 'results.csv'} --curves {published / 'convergence.csv'}"
    found = verdicts(run, line, 1)
    assert list(found) == list(before.index)
    for name, one in found.items():
        assert {True: "yes", False: "no"}[one["holds"]] == before.at[name, "holds"]
        if stated[name].bound == 0 and stated[name].count is None:  # else it was another margin
            assert one["margin"] == pytest.approx(before.at[name, "margin"], abs=1e-9)
            assert one["where"] == before.at[name, "where"]


def test_the_papers_table_with_other_names_of_columns(run, tmp_path):
    other = paper_tables().rename(
        columns={"method": "algorithm", "problem_id": "task", "psnr_db": "psnr"}
    )
    other.to_csv(tmp_path / "other.csv", index=False)
    names = "--columns method=algorithm problem_id=task psnr_db=psnr"
    found = verdicts(run, f"other.csv {names}", 0)
    assert sum(one["holds"] is True for one in found.values()) == 7
    assert {one["holds"] for name, one in found.items() if "rises" in name} == {None}


def test_other_rows_stand_for_the_methods_of_the_claims(run, tmp_path):
    """By the names on the command line as by those in the tables, of which two change places."""
    published = ROOT / "results/published/embedded"
    exchanged = {"rerg": "deqgd", "deqgd": "rerg", "rg1": "mine"}
    for name in ("results", "convergence"):
        table = pd.read_csv(published / f"{name}.csv")
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        table["method"] = table["method"].replace(exchanged)
        table.to_csv(tmp_path / f"{name}_renamed.csv", index=False)
    line = "results_renamed.csv --curves convergence_renamed.csv --methods"
    named = verdicts(run, f"{line} rerg=deqgd deqgd=rerg rg1=mine", 1)
    assert named == verdicts(run, "results.csv --curves convergence.csv", 1)
    assert named != verdicts(run, f"{line} rg1=mine", 1)
    assert run(f"{line} rg1=mine")[1].endswith("\n\nrg1: the rows of mine\n")


ONE = (
    "columns: {method: algorithm, problem: task}\nclaims:\n"
    "  - {name: a, statement: b, value: psnr, method: TV, against: [DPIR]"
)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (ONE + ", at_least: 0, margn: 2}", "claims[0]: Additional properties are not allowed ('m"),
        (ONE + "}", "claims[0]: must say either at_least or more_than, one of them"),
        (ONE + ", at_least: 0, more_than: 0}", "claims[0]: must say either at_least or more_than"),
        (ONE + ", at_least: much}", "claims[0].at_least: 'much' is not of type 'number'"),
        (ONE + ", at_least: 0, of: the rise}", "a: a rise is of one problem, against one"),
        (ONE + ", at_least: 0, of: the mean, count: 2}", "a: `count` is for a claim of each"),
        ("claims: []", "the file: 'columns' is a required property"),
        ("[", "cannot be read as YAML"),
        ("just words", "the file: 'just words' is not of type 'object'"),
        (ONE.replace("algorithm", "algoritm") + ", at_least: 0}", 'did you mean "algorithm"?'),
        (ONE.replace("psnr", "ssim") + ", at_least: 0}", "none can be evaluated on bench.csv"),
        (ONE.replace("[DPIR]", "[KAIR]") + ", at_least: 0}", "none can be evaluated on bench.csv"),
    ],
)
def test_what_is_not_understood_is_named(run, tmp_path, claims, said):
    (tmp_path / "claims.yaml").write_text(claims)
    status, text = run("bench.csv --claims claims.yaml")
    assert status == 2 and said in text
    assert text.strip().splitlines()[-1].startswith("rglib claims: ")


OF_PAGE = "bench.csv --claims claims.yaml"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("none.csv", "none.csv: cannot be read as CSV"),
        ("bench.csv --claims none.yaml", "none.yaml: cannot be read as YAML"),
        ("bench.csv", "has no column method (it has: algorithm, task"),
        ("bench.csv --columns method", "'method' must be OURS=THEIRS"),
        ("bench.csv --columns method=way", "has no column way"),
        ("bench.csv --columns method=way method=task", "method is given twice, way and task"),
        (f"{OF_PAGE} --methods RERG", "--methods: 'RERG' must be OURS=THEIRS"),
        (f"{OF_PAGE} --methods RERQ=TV", 'the claims name no RERQ; did you mean "RERG"?'),
        (f"{OF_PAGE} --methods RERG=ABC", "no rows of ABC; it has DPIR, RERG, TV"),
        ("bench.csv --claims claims.yaml --curves bench.csv", "bench.csv: has no column iteration"),
    ],
)
def test_tables_that_cannot_be_used_are_named(run, line, said):
    status, text = run(line)
    assert status == 2 and said in text and text.count("\n") == 1


def test_a_column_of_words_is_no_value(run, tmp_path):
    (tmp_path / "bench.csv").write_text(BENCH.replace("26.9", "good"))
    status, text = run("bench.csv --claims claims.yaml")
    assert status == 2 and "bench.csv: the column psnr must hold numbers" in text
    assert text.count("\n") == 1


def test_two_claims_of_one_name_are_refused(run, tmp_path):
    text = CLAIMS_OF_PAGE.replace("rerg_lpips", "better_than_tv")
    (tmp_path / "claims.yaml").write_text(text)
    status, said = run("bench.csv --claims claims.yaml")
    assert status == 2 and "two claims are called better_than_tv" in said
