"""Theorem 1 on trained networks for a reader: what the table's columns hold, and its figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rglib.plan.open_settings import task_of
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.records.provenance import Provenance
from rglib.report.evaluations import ResultsError
from rglib.report.figures import (
    CM,
    CURVE_STYLES,
    STYLE,
    TEXT_WIDTH,
    legend_below,
    new_figure,
    save_both,
)
from rglib.report.job import Job

OUTCOMES = "converged, out_of_steps, diverged or non_finite"

COLUMNS = {
    "method": COLUMN_DESCRIPTIONS["method"],
    "problem_id": COLUMN_DESCRIPTIONS["problem_id"],
    "image": "name of the image of the test set, of which a centre crop is used",
    "denoiser": "stage whose P is in f: the stage of G where it learns P, else the configured one",
    "contraction": (
        "L_g, the larger of the greatest singular values of the Jacobian of g at x_g and at x_f; "
        "local and estimated from within, hence a lower bound of the true constant, to some 1e-6"
    ),
    "assumption_holds": (
        "whether contraction < 1; False is proof that the assumption fails, True is none that it "
        "holds everywhere"
    ),
    "distance_g": "||x_g - x_hat||, the left side of (18); norms are sums over the crop",
    "distance_f": "||x_f - x_hat||",
    "link": "L_link at x_f - eta D(x_f) with variance eta sigma^2",
    "bound_18": "the right side of (18) with contraction as L_g; empty where that is >= 1",
    "holds_18": "whether (18) holds; empty where one of its sides is",
    "tightness_18": "bound_18 / distance_g: 1 is an equality",
    "left_25": "1/2 ||x_g - x_hat||^2, the left side of (25)",
    "right_25": "the right side of (25) with contraction as L_g; empty where that is >= 1",
    "holds_25": "whether (25) holds; empty where one of its sides is",
    "secant": "||g(x_g) - g(x_f)|| / ||x_g - x_f||: of L_g the theorem's proof needs only this",
    "bound_secant": "the right side of (18) with secant as L_g; empty where that is >= 1",
    "x_f_outcome": f"of the search for x_f: {OUTCOMES}; what needs x_f is empty after the last two",
    "x_f_residual": "||f(x) - x|| where it ended, to be compared with the square root of link",
    "x_g_outcome": f"of the search for x_g: {OUTCOMES}; what needs x_g is empty after the last two",
    "x_g_residual": "||g(x) - x|| where it ended, to be compared with the square root of link",
}

KINDS = {"completion": "o", "deblurring": "s", "super-resolution": "^"}  # of problems: markers
FAINT = 0.3  # opacity of what rests on a fixed point that is short of the tolerance
BAND = 0.07  # share of the vertical axis above all bounds, for points that have none


def write_figure(job: Job) -> None:
    """The figure of ``bound.csv``."""
    labels = job.labels(job.params.methods)
    figure = bound_figure(job.table("bound"), labels=labels, provenance=job.provenance)
    title = "Theorem 1 on the trained networks"
    save_both(figure, job, title=title, provenance=job.provenance)


def bound_figure(
    bounds: pd.DataFrame, *, labels: Mapping[str, str], provenance: Provenance
) -> Figure:
    """Draw the right side of (18) over its left side, a panel per method, a point per restoration.

    A filled marker is the bound with L_g as estimated; where that is >= 1 it lies in the band on
    top, for no bound. An open one is the bound with the secant, all that the proof needs of L_g.
    Where the search for x_f or x_g ran out of steps, the marker is faint, where it went astray
    there is none, and what is counted under each panel says how often.

    Args:
        bounds: a table with `COLUMNS`.
        labels: readable names of the methods to draw, by id, in the order of the panels.
        provenance: what made the numbers; goes to the foot.

    Raises:
        ResultsError: there is no method to draw, or the table has no row of one.
    """
    missing = [method for method in labels if method not in set(bounds["method"])]
    if missing or not labels:
        raise ResultsError(f"no bound of {', '.join(missing) or 'any method'} to draw")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH, 8.6 * CM, foot=provenance.short())
        panels = figure.subplots(1, len(labels), sharex=True, sharey=True, squeeze=False)[0]
        no_bound = _set_limits(panels[0], bounds)
        for axes, (method, label) in zip(panels, labels.items(), strict=True):
            _draw(axes, bounds[bounds["method"] == method], no_bound)
            axes.set_title(label, loc="left")
        panels[0].set_ylabel("bound of (18), ours")
        panels[0].text(0.03, 1 - BAND / 2, "no bound", transform=panels[0].transAxes, va="center")
        legend_below(figure, _legend(), columns=3)
    return figure


def _set_limits(axes: Axes, bounds: pd.DataFrame) -> float:
    """Set the limits of logarithmic axes, and return where points without a bound are drawn."""
    sides = bounds[["distance_g", "bound_18", "bound_secant"]]
    logs = sides.where(np.isfinite(sides) & (sides > 0)).transform(np.log10)
    left, right = _range(logs["distance_g"])
    bottom, top = _range(logs.melt()["value"])
    top = bottom + (top - bottom) / (1 - BAND)
    axes.set(xscale="log", yscale="log", xlim=(10**left, 10**right), ylim=(10**bottom, 10**top))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    return 10 ** (top - BAND / 2 * (top - bottom))


def _range(logs: pd.Series) -> tuple[float, float]:
    margin = 0.15
    return (logs.min() - margin, logs.max() + margin) if logs.notna().any() else (-1.0, 1.0)


def _draw(axes: Axes, bounds: pd.DataFrame, no_bound: float) -> None:
    converged = (bounds[["x_f_outcome", "x_g_outcome"]] == "converged").all(axis=1)
    kinds = bounds["problem_id"].map(_kind)
    for look in _looks():
        for opacity, which in ((1.0, converged), (FAINT, ~converged)):
            points = bounds[which & (kinds == look["label"])]
            bound = points["bound_18"].mask(points["contraction"] >= 1, no_bound)
            drawn = look | {"alpha": opacity}
            axes.plot(points["distance_g"], points["bound_secant"], fillstyle="none", **drawn)
            axes.plot(points["distance_g"], bound, markeredgewidth=0, **drawn)
    axes.axline((1, 1), (10, 10), color="0.4", linewidth=0.8, zorder=0)
    axes.axhspan(*_band(axes), color="0.93", zorder=0)
    axes.set_xlabel(
        "$\\Vert x_g - \\hat{x} \\Vert$\n"
        f"$L_g < 1$: {(bounds['contraction'] < 1).sum()} of {len(bounds)}\n"
        f"$x_f$ and $x_g$ converged: {converged.sum()} of {len(bounds)}",
        fontsize=8,
    )


def _band(axes: Axes) -> tuple[float, float]:
    bottom, top = np.log10(axes.get_ylim())
    return 10 ** (top - BAND * (top - bottom)), 10**top


def _kind(problem_id: str) -> str:
    return task_of(problem_id).replace("_", "-")


def _looks() -> list[dict[str, Any]]:
    """How the points of each kind of problem are drawn."""
    return [
        {
            "linestyle": "none",
            "marker": marker,
            "color": style.colour,
            "markersize": 4,
            "label": kind,
        }
        for (kind, marker), style in zip(KINDS.items(), CURVE_STYLES, strict=False)
    ]


def _legend() -> list[Line2D]:
    grey: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "0.3", "markersize": 4}
    return [
        *(Line2D([], [], **look) for look in _looks()),
        Line2D([], [], **grey, label="$L_g$ as estimated"),
        Line2D([], [], **grey, fillstyle="none", label="$L_g$ between $x_f$ and $x_g$ only"),
        Line2D([], [], **grey, alpha=FAINT, label="$x_f$ or $x_g$ not converged"),
    ]
