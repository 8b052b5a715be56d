"""The paper's claims as checks on numbers.

Each claim is checked on our numbers and, as a check of the check, on the paper's own. A method
whose restoration of any image diverged counts as minus infinity on that problem: it loses against
every method that finished. A claim whose methods or problems are not there is not evaluable, and
says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tabulate import tabulate

from rglib.provenance import Provenance
from rglib.results import PAPER_METHODS, footnotes, paper_problems, paper_tables, problem_title

RGS = ("pnpreg", "rg1", "deqgd", "rerg")  # the regularizing gradients, used by gradient descent
COMPLETIONS = ("completion80", "completion90")
FIGURE_2 = "completion90"

WITHIN_DB = 0.32
FAILURE_DB = 1.0  # ours: the paper says that DEQGD fails, at 2.52 dB under RERG, and names no bound
RISE = 0.5  # ours: the share of pnpReG's gain whose iteration tells who rises faster

CLAIM_COLUMNS = (
    "claim statement expected unit ours holds margin where paper paper_holds paper_margin "
    "paper_where"
).split()


class NotEvaluableError(LookupError):
    """Numbers a claim speaks of are not there; the message says which."""


@dataclass(frozen=True)
class Numbers:
    """What claims are checked on.

    ``psnr`` (dB) and ``ssim`` have a row per problem id and a column per method id. ``curves``
    holds mean PSNR in dB with a row per iteration and a column per method, on `FIGURE_2`.
    """

    psnr: pd.DataFrame
    ssim: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of_run(cls, summary: pd.DataFrame, convergence: pd.DataFrame) -> Numbers:
        """Take ours from what `rglib.results.summarise` and `convergence` return."""
        on_figure_2 = convergence[convergence["problem_id"] == FIGURE_2]
        return cls(
            # Only a restoration that did not finish has no mean, and it loses against any other.
            psnr=_wide(summary, "psnr_db").fillna(-math.inf),
            ssim=_wide(summary, "ssim").fillna(-math.inf),
            curves=on_figure_2.pivot(index="iteration", columns="method", values="psnr_db"),
        )

    @classmethod
    def of_paper(cls) -> Numbers:
        """Take the paper's, which has published no curve as numbers."""
        ids = {name: method for method, name in PAPER_METHODS.items()}
        tables = paper_tables().replace({"method": ids})
        return cls(psnr=_wide(tables, "psnr_db"), ssim=_wide(tables, "ssim"), curves=pd.DataFrame())


@dataclass(frozen=True)
class Verdict:
    """What a claim came to; ``holds`` is None where it is not evaluable and ``found`` says why."""

    holds: bool | None
    found: str
    margin: float = math.nan
    where: str = ""

    @property
    def word(self) -> str:
        """``yes``, ``no`` or ``not evaluable``."""
        return {True: "yes", False: "no", None: "not evaluable"}[self.holds]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; ``check`` raises `NotEvaluableError` where numbers are missing."""

    name: str
    statement: str
    expected: str
    check: Callable[[Numbers], Verdict]
    unit: str = "dB"

    def verdict(self, numbers: Numbers) -> Verdict:
        """Check the claim."""
        try:
            return self.check(numbers)
        except NotEvaluableError as missing:
            return Verdict(holds=None, found=f"not evaluable: {missing}")


def _wide(tidy: pd.DataFrame, metric: str) -> pd.DataFrame:
    return tidy.pivot(index="problem_id", columns="method", values=metric)


def _pick(
    wide: pd.DataFrame, methods: Sequence[str], problems: Sequence[str]
) -> tuple[pd.Series, ...]:
    """One series over the problems per method."""
    for kind, wanted, there in (
        ("method", methods, wide.columns),
        ("problem", problems, wide.index),
    ):
        absent = [name for name in wanted if name not in there]
        if absent:
            raise NotEvaluableError(f"no result of {kind} {', '.join(absent)}")
    return tuple(wide.loc[list(problems), method] for method in methods)


def _less(ours: pd.Series | float, theirs: pd.Series) -> pd.Series:
    """Difference, cleared of rounding errors; minus infinity where neither has finished."""
    return (ours - theirs).round(9).fillna(-math.inf)


def _worst(difference: pd.Series) -> tuple[float, str]:
    return float(difference.min()), str(difference.idxmin())


def _out_of(true: pd.Series) -> str:
    return f"{int(true.sum())} of {len(true)}"


# ------------------------------------------------------------------------------------ the claims


def _rerg_reaches_deqgd(numbers: Numbers) -> Verdict:
    rerg, deqgd = _pick(numbers.psnr, ("rerg", "deqgd"), paper_problems())
    difference = _less(rerg, deqgd)
    reached = difference >= 0
    return Verdict(reached.sum() >= 11, _out_of(reached), *_worst(difference))


def _rerg_beats_pnpreg(numbers: Numbers) -> Verdict:
    rerg, pnpreg = _pick(numbers.psnr, ("rerg", "pnpreg"), paper_problems())
    difference = _less(rerg, pnpreg)
    claimed = difference.drop(list(COMPLETIONS))
    return Verdict(bool((claimed > 0).all()), _out_of(difference > 0), *_worst(claimed))


def _rerg_near_the_better(numbers: Numbers) -> Verdict:
    rerg, rg1, deqgd = _pick(numbers.psnr, ("rerg", "rg1", "deqgd"), paper_problems())
    difference = _less(rerg, rg1.combine(deqgd, max))
    near = difference >= -WITHIN_DB
    return Verdict(bool(near.all()), f"{_out_of(near)} within", *_worst(difference))


def _rg1_best_on_completion(numbers: Numbers) -> Verdict:
    rivals = [method for method in RGS if method != "rg1"]
    rg1, *others = _pick(numbers.psnr, ("rg1", *rivals), COMPLETIONS)
    difference = _less(rg1, pd.concat(others, axis=1).max(axis=1))
    return Verdict(bool((difference > 0).all()), _out_of(difference > 0), *_worst(difference))


def _deqgd_fails(numbers: Numbers) -> Verdict:
    rerg, deqgd = _pick(numbers.psnr, ("rerg", "deqgd"), (FIGURE_2,))
    margin, where = _worst(_less(rerg, deqgd))
    found = f"{margin:.2f} dB under RERG" if math.isfinite(margin) else "DEQGD or RERG diverged"
    return Verdict(margin >= FAILURE_DB, found, margin, where)


def _rerg_best_mean(wide: pd.DataFrame, decimals: int) -> Verdict:
    means = pd.concat(_pick(wide, tuple(PAPER_METHODS), paper_problems()), axis=1).mean()
    margin, runner_up = _worst(_less(means["rerg"], means.drop("rerg")))
    found = (
        f"{means['rerg']:.{decimals}f}, best of the others: {means[runner_up]:.{decimals}f} "
        f"({PAPER_METHODS[runner_up]})"
    )
    return Verdict(margin > 0, found, margin, "mean over the problems")


def _rises_faster(numbers: Numbers, method: str) -> Verdict:
    absent = [name for name in (method, "pnpreg") if name not in numbers.curves]
    if absent:
        raise NotEvaluableError(f"no curve of {', '.join(absent)} on {FIGURE_2}")
    reference = numbers.curves["pnpreg"].dropna()
    start, end = reference.iloc[0], reference.iloc[-1]
    if not end > start:
        raise NotEvaluableError(f"pnpReG ends at {end:.2f} dB, not above its start, {start:.2f} dB")
    level = start + RISE * (end - start)
    ours, theirs = (_crossing(numbers.curves[name], level) for name in (method, "pnpreg"))
    found = f"{ours:.1f} iterations to {level:.2f} dB, pnpReG {theirs:.1f}"
    return Verdict(ours < theirs, found, round(theirs - ours, 9), FIGURE_2)


def _crossing(curve: pd.Series, level: float) -> float:
    """Iteration, linearly interpolated, at which a curve first reaches a level; inf if never."""
    curve = curve.dropna()
    reached = np.flatnonzero(curve >= level)
    if not len(reached):
        return math.inf
    first = int(reached[0])
    if first == 0:
        return float(curve.index[0])
    before, after = curve.index[first - 1 : first + 1]
    share = (level - curve[before]) / (curve[after] - curve[before])
    return float(before + share * (after - before))


_RISE_STATEMENT = (
    f"{{}} rises faster than pnpReG on {problem_title(FIGURE_2)} (figure 2): fewer iterations "
    f"until {RISE:.0%} of what pnpReG gains in all"
)

CLAIMS = (
    Claim(
        "rerg_reaches_deqgd",
        "RERG is at least as good as DEQGD on 11 of the 12 problems (PSNR)",
        "11 of 12",
        _rerg_reaches_deqgd,
    ),
    Claim(
        "rerg_beats_pnpreg",
        "RERG is better than pnpReG on the 10 problems that are not completion (PSNR)",
        "10 of 12",
        _rerg_beats_pnpreg,
    ),
    Claim(
        "rerg_near_the_better",
        f"RERG is within {WITHIN_DB} dB of the better of RG1 and DEQGD on every problem",
        "12 of 12 within",
        _rerg_near_the_better,
    ),
    Claim(
        "rg1_best_on_completion",
        "RG1 is the best regularizing gradient on both completions (PSNR)",
        "2 of 2",
        _rg1_best_on_completion,
    ),
    Claim(
        "deqgd_fails",
        f"DEQGD fails on {problem_title(FIGURE_2)}: at least {FAILURE_DB} dB under RERG",
        "2.52 dB under RERG",
        _deqgd_fails,
    ),
    Claim(
        "rerg_best_mean_psnr",
        "RERG has the best PSNR of all methods in the mean over the 12 problems",
        "32.28, best of the others: 32.23 (MTDEQ)",
        lambda numbers: _rerg_best_mean(numbers.psnr, 2),
    ),
    Claim(
        "rerg_best_mean_ssim",
        "RERG has the best SSIM of all methods in the mean over the 12 problems",
        "0.8984, best of the others: 0.8961 (DEQGD)",
        lambda numbers: _rerg_best_mean(numbers.ssim, 4),
        unit="SSIM",
    ),
    Claim(
        "deqgd_rises_faster",
        _RISE_STATEMENT.format("DEQGD"),
        "fewer iterations",
        lambda numbers: _rises_faster(numbers, "deqgd"),
        unit="iterations",
    ),
    Claim(
        "rerg_rises_faster",
        _RISE_STATEMENT.format("RERG"),
        "fewer iterations",
        lambda numbers: _rises_faster(numbers, "rerg"),
        unit="iterations",
    ),
)


# -------------------------------------------------------------------------------------- reporting


def check_claims(ours: Numbers, *, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Check each claim on our numbers and on the paper's.

    Returns:
        One row per claim with `CLAIM_COLUMNS`; ``holds`` is ``yes``, ``no`` or ``not evaluable``.
    """
    paper = Numbers.of_paper()
    rows = []
    for claim in claims:
        mine, theirs = claim.verdict(ours), claim.verdict(paper)
        rows.append(
            {
                "claim": claim.name,
                "statement": claim.statement,
                "expected": claim.expected,
                "unit": claim.unit,
                "ours": mine.found,
                "holds": mine.word,
                "margin": mine.margin,
                "where": mine.where,
                "paper": theirs.found,
                "paper_holds": theirs.word,
                "paper_margin": theirs.margin,
                "paper_where": theirs.where,
            }
        )
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def claims_markdown(checked: pd.DataFrame, *, provenance: Provenance) -> str:
    """Tell in Markdown which claims hold on our numbers, and by how much.

    Args:
        checked: what `check_claims` returns.
        provenance: ends the text.
    """
    count = checked["holds"].value_counts()
    rows = [
        (
            claim["statement"],
            claim["expected"],
            claim["ours"],
            f"**{claim['holds']}**",
            margin_text(claim["margin"], claim["unit"], claim["where"]),
            claim["paper_holds"],
            margin_text(claim["paper_margin"], claim["unit"], claim["paper_where"]),
        )
        for claim in checked.to_dict("records")
    ]
    headers = (
        "claim",
        "the paper states",
        "ours",
        "holds on ours",
        "smallest margin",
        "holds on the paper's numbers",
        "the paper's smallest margin",
    )
    parts = [
        "# The paper's claims, checked",
        f"On our numbers {count.get('yes', 0)} of {len(checked)} claims hold, "
        f"{count.get('no', 0)} do not and {count.get('not evaluable', 0)} are not evaluable. "
        "A method that diverged on any image counts as minus infinity on that problem. "
        f"The bound of {FAILURE_DB} dB for a failure and the {RISE:.0%} of the gain are ours; the "
        "paper names none. It has published no curve as numbers.",
        tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True),
    ]
    return "\n\n".join([*parts, footnotes(provenance)]) + "\n"


def margin_text(margin: float, unit: str, where: str) -> str:
    """A margin with its unit and the problem it is of; ``""`` where there is none."""
    if math.isnan(margin):
        return ""
    if math.isinf(margin):
        return f"{'+' if margin > 0 else '-'}infinite ({where})"
    decimals = {"dB": 2, "SSIM": 4, "iterations": 1}[unit]
    return f"{margin:+.{decimals}f} {unit} ({where})"
