import math

import numpy as np
import pandas as pd
import pytest
from toys import toy_provenance

from rglib.claims import CLAIM_COLUMNS, CLAIMS, Numbers, check_claims, claims_markdown
from rglib.results import (
    COLUMN_DESCRIPTIONS,
    CONVERGENCE_COLUMNS,
    PAPER_METHODS,
    RESULT_COLUMNS,
    paper_problems,
    paper_tables,
    summarise,
)

IDS = {name: method for method, name in PAPER_METHODS.items()}
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
        "rerg_reaches_deqgd": (-0.07, "sr3_gaussian_n0"),
        "rerg_beats_pnpreg": (0.07, "sr3_gaussian_n0"),
        "rerg_near_the_better": (-0.32, "completion90"),
        "rg1_best_on_completion": (0.22, "completion80"),
        "deqgd_fails": (2.52, "completion90"),
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
        assert numbers.psnr[method].mean() == pytest.approx(psnr, abs=0.0051)
        assert numbers.ssim[method].mean() == pytest.approx(ssim, abs=0.000051)


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
    everything = {(m, p): math.nan for m in PAPER_METHODS for p in paper_problems()}
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
    assert "not above its start" in sinking.at["deqgd_rises_faster", "ours"]


def test_markdown_tells_all_and_names_the_stand_in():
    provenance = toy_provenance()
    checked = check(results({("deqgd", "completion90"): math.nan})).reset_index()
    text = claims_markdown(checked, provenance=provenance)
    assert "9 of 9 claims hold, 0 do not" in text
    assert all(claim.statement in text for claim in CLAIMS)
    assert "-0.07 dB (sr3_gaussian_n0)" in text and "+infinite (completion90)" in text
    assert "STAND-IN TEST SET: Embedded instead of Set5" in text
    assert "nan" not in text


def test_claims_have_names_of_their_own_and_described_columns():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    assert set(CLAIM_COLUMNS) <= set(COLUMN_DESCRIPTIONS)
    assert np.isnan(Numbers.of_paper().psnr).sum(axis=None) == 0
