"""The charts of the page, as Plotly figures without colours: those follow the page's theme.

``meta`` of a trace holds the number of its colour, ``series``, for ``assets/charts.js``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from rglib.report.figures import CURVE_STYLES, DEEPEST_DB

# What a training's history holds, by the beginnings of its columns, and the axis it is drawn on.
LOGARITHMIC = {"type": "log", "exponentformat": "power"}
QUANTITIES = {
    "Losses": (("loss",), LOGARITHMIC),
    "Norms of the gradients": (("gradient_",), LOGARITHMIC),
    "PSNR on validation crops (dB)": (("psnr_",), {}),
    "Share of the batch at its fixed point": (
        ("f_converged", "g_converged"),
        {"range": [-0.03, 1.03]},
    ),
    "Iterations to the fixed point, mean": (
        ("f_iterations", "g_iterations"),
        {"rangemode": "tozero"},
    ),
    "Stability of G": (("rayleigh_", "eigenvalue_"), {}),
}
OUTCOMES = ("converged", "out_of_steps", "diverged", "non_finite")  # of a fixed-point iteration


def convergence_chart(curves: pd.DataFrame, labels: Mapping[str, str]) -> go.Figure:
    """Mean PSNR over the iterations on one problem, a trace per method, in the order of the labels.

    The axis ends `rglib.report.figures.DEEPEST_DB` under the starting point, as in figure 2.

    Args:
        curves: the rows of `rglib.report.evaluations.convergence` of this problem.
        labels: readable names of the methods, by id.
    """
    figure = _figure("iteration", "mean PSNR (dB)")
    for number, (method, label) in enumerate(labels.items()):
        curve = curves[curves["method"] == method]
        figure.add_scatter(
            x=curve["iteration"].tolist(),
            y=curve["psnr_db"].round(4).tolist(),
            name=label,
            mode="lines",
            meta={"series": _series(number), "method": method},
            line=_line(number, width=2.4),
            hovertemplate="%{y:.2f} dB",
        )
    floor = curves.loc[curves["iteration"] == 0, "psnr_db"].max() - DEEPEST_DB
    if curves["psnr_db"].min() < floor:
        figure.update_yaxes(range=[floor, curves["psnr_db"].max() + 0.5])
    return figure


def training_charts(history: pd.DataFrame) -> list[tuple[str, go.Figure]]:
    """The curves of one stage: a title and a figure for each of `QUANTITIES` that was logged.

    Args:
        history: the table ``history.csv`` of `rglib.training.trainer.Trainer`.
    """
    charts = []
    for title, (beginnings, axis) in QUANTITIES.items():
        columns = [column for column in map(str, history) if column.startswith(beginnings)]
        if not columns:
            continue
        figure = _figure("step", None)
        figure.update_yaxes(axis)
        for number, column in enumerate(columns):
            logged = history[["step", column]].dropna()  # the monitor looks now and then
            figure.add_scatter(
                x=logged["step"].tolist(),
                y=logged[column].map(lambda value: float(f"{value:.5g}")).tolist(),
                name=_readable(column),
                mode="lines+markers" if len(logged) < 20 else "lines",
                meta={"series": _series(number)},
                line=_line(number, width=1.8),
                marker={"size": 5},
            )
        figure.update_layout(showlegend=True)
        charts.append((title, figure))
    return charts


def fixed_points(history: pd.DataFrame) -> list[dict[str, object]]:
    """How the fixed-point iterations of a stage's training ended, a row for f and one for g.

    Returns:
        Rows of ``map``, the number of ``steps`` that were logged, the mean of ``iterations`` and
        the mean share of each of `OUTCOMES`, on [0, 1]; none where the stage has no such iteration.
    """
    return [
        {
            "map": name,
            "steps": len(history),
            "iterations": history[f"{name}_iterations"].mean(),
            **{outcome: history[f"{name}_{outcome}"].mean() for outcome in OUTCOMES},
        }
        for name in ("f", "g")
        if f"{name}_iterations" in history
    ]


def _figure(x: str, y: str | None) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
            "showlegend": False,
            "hovermode": "x unified",
            "margin": {"l": 54, "r": 10, "t": 10, "b": 44},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
            "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        }
    )


def _series(number: int) -> int:
    """More curves than there are styles begin again with the first."""
    return number % len(CURVE_STYLES)


def _line(number: int, *, width: float) -> dict[str, Any]:
    """The dashes of the printed figures, in pixels for a line of this width."""
    dashes = CURVE_STYLES[_series(number)].dashes
    return {"width": width, "dash": ",".join(f"{width * dash:g}px" for dash in dashes) or "solid"}


PLAIN = {
    "rayleigh_clean": "Rayleigh quotient on sharp images",
    "rayleigh_noisy": "Rayleigh quotient on noisy images",
    "eigenvalue_min": "smallest eigenvalue",
    "eigenvalue_max": "largest eigenvalue",
}


def _readable(column: str) -> str:
    """``loss_FB`` is the FB term of the loss, ``f_converged`` of f."""
    if column in PLAIN:
        return PLAIN[column]
    name, _, rest = column.partition("_")
    if rest in ("iterations", "converged"):
        return name
    if name in ("loss", "gradient", "psnr"):
        return rest or "total"
    return f"{name} {rest}"
