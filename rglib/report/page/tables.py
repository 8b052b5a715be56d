"""The tables of the page: ours, the paper's, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rglib.records.columns import OUTCOMES
from rglib.report.evaluations import (
    MINUS,
    SIGNIFICANT,
    TABLE_TITLES,
    failures,
    problem_title,
)

MEAN = "mean"  # in the place of a problem
METRICS = {"psnr_db": "PSNR (dB)", "ssim": "SSIM"}
DEEPEST = {"psnr_db": 3.0, "ssim": 0.1}  # the difference from the paper with the strongest colour


@dataclass(frozen=True)
class Number:
    """A mean of ours beside the paper's, as text; ``""`` where there is none.

    ``depth`` is the difference in units of `DEEPEST`, on [-1, 1], for its colour.
    """

    ours: str
    paper: str
    difference: str
    depth: float
    best: bool


@dataclass(frozen=True)
class Cell:
    """What a method reaches on a problem: a `Number` for each of `METRICS`."""

    method: str
    problem: str
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Table:
    """A table of the page; ``columns`` are the titles, ``rows`` a label and cells each."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def tables(summary: pd.DataFrame, labels: Mapping[str, str], *, comparable: bool) -> list[Table]:
    """The means over all problems, then the paper's two tables as far as they have problems.

    Args:
        summary: what `rglib.report.evaluations.summarise` returns.
        labels: readable names of the methods, by id.
        comparable: whether there are differences from the paper, see
            `rglib.records.provenance.comparable`.
    """
    means = _cells(_means(summary), comparable)
    row = (MEAN, tuple(means[method, MEAN] for method in labels))
    made = [Table("Means over all problems", tuple(labels.values()), (row,))]
    for number, title in TABLE_TITLES.items():
        cells = _cells(summary[summary["table"] == number], comparable)
        problems = list(dict.fromkeys(problem for _, problem in cells))
        rows = [
            (label, tuple(cells[method, problem] for problem in problems))
            for method, label in labels.items()
        ]
        if problems:
            columns = tuple(map(problem_title, problems))
            made.append(Table(f"Table {number}. {title}", columns, tuple(rows)))
    return made


def outcomes(results: pd.DataFrame, labels: Mapping[str, str]) -> list[dict[str, object]]:
    """How the restorations of each method ended: its label, their number, and that of each outcome.

    Args:
        results: what `rglib.report.evaluations.read_results` returns.
        labels: readable names of the methods, by id.
    """
    counts = results.groupby("method")["outcome"].value_counts()
    return [
        {
            "label": label,
            "restorations": int((results["method"] == method).sum()),
            **{outcome: int(counts.get((method, outcome), 0)) for outcome in OUTCOMES},
        }
        for method, label in labels.items()
    ]


def _means(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per method: its means over the problems, nan where one of them is."""
    groups = summary.groupby("method", sort=False)
    values = groups[["psnr_db", "ssim", "paper_psnr_db", "paper_ssim", "converged"]]
    means = values.mean(skipna=False)
    counts = groups["restorations"].sum()
    return means.assign(restorations=counts, problem_id=MEAN).reset_index()


def _cells(rows: pd.DataFrame, comparable: bool) -> dict[tuple[str, str], Cell]:
    """A cell for each row, by method and problem; the best is that of a problem."""
    rounded = rows.round(SIGNIFICANT)
    best = rounded.groupby("problem_id")[list(METRICS)].transform("max")
    return {
        (row["method"], row["problem_id"]): Cell(
            row["method"],
            row["problem_id"],
            {metric: _number(row, metric, top[metric], comparable) for metric in METRICS},
        )
        for row, top in zip(rounded.to_dict("records"), best.to_dict("records"), strict=True)
    }


def _number(row: Mapping[Hashable, Any], metric: str, best: float, comparable: bool) -> Number:
    decimals = SIGNIFICANT[metric]
    ours, paper = row[metric], row[f"paper_{metric}"]
    difference = ours - paper
    known = comparable and not math.isnan(difference)
    return Number(
        ours=failures(row) or f"{ours:.{decimals}f}",
        paper="" if math.isnan(paper) else f"{paper:.{decimals}f}",
        difference=f"{difference:+.{decimals}f}".replace("-", MINUS) if known else "",
        depth=max(-1.0, min(1.0, difference / DEEPEST[metric])) if known else 0.0,
        best=bool(ours == best),
    )
