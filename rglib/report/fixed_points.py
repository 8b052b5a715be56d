"""The study of the training at fixed points for a reader: a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from rglib.plan.fixed_point_variants import HELD_OUT
from rglib.records.provenance import Provenance
from rglib.report.evaluations import MINUS, ResultsError, footnotes, write_csv, write_text
from rglib.report.figures import (
    CM,
    CURVE_STYLES,
    DEEPEST_DB,
    STYLE,
    TEXT_WIDTH,
    legend_below,
    new_figure,
    save_both,
)
from rglib.report.job import Job

Config = Mapping[str, Any]

GRADIENTS_TITLE = "The gradient that G learns from, through each backward map"
TITLE = "Training at fixed points, part by part, on validation images"
KINDS = {  # of problems, by the beginning and the end of their ids
    "all twelve": ("", ""),
    "completion": ("completion", ""),
    "deblurring": ("deblur", ""),
    "super-resolution": ("sr", "_n0"),
    "super-resolution, noisy": ("sr", "_n0.01"),
}


def write_study(job: Job, *, columns: Mapping[str, str]) -> None:
    """The study's rows as CSV, and their summary in Markdown."""
    table, provenance = job.table("tables")[list(columns)], job.provenance
    write_csv(table, job.outputs.csv, title=TITLE, provenance=provenance, descriptions=columns)
    text = study_markdown(table, plan=job.params.plan, provenance=provenance)
    write_text(text, job.outputs.md, title=TITLE, provenance=provenance)


def write_study_figure(job: Job) -> None:
    """The figure of ``fixed_points.csv``."""
    figure = study_figure(job.table("table"), plan=job.params.plan, provenance=job.provenance)
    save_both(figure, job, title=TITLE, provenance=job.provenance)


def write_gradients(job: Job, *, columns: Mapping[str, str]) -> None:
    """The gradients through each backward map beside the true one, as CSV and drawn."""
    table, provenance, title = job.table("table"), job.provenance, GRADIENTS_TITLE
    write_csv(table, job.outputs.csv, title=title, provenance=provenance, descriptions=columns)
    figure = gradients_figure(table, plan=job.params.plan, provenance=provenance)
    save_both(figure, job, title=title, provenance=provenance)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean PSNR (dB) by variant, seed and minutes: of all twelve problems, by kind, and held out.

    Args:
        table: with the columns of `rglib.studies.fixed_points.COLUMNS`.
    """
    key = ["variant", "seed", "minutes"]
    looks = table.drop_duplicates(key)[[*key, "updates", "calls"]].set_index(key)
    wide = table.pivot(index=key, columns="problem_id", values="psnr_db")
    twelve = wide.drop(columns=HELD_OUT, errors="ignore")
    for name, (begins, ends) in KINDS.items():
        ids = [id for id in map(str, twelve) if id.startswith(begins) and id.endswith(ends)]
        looks[name] = twelve[ids].mean(axis=1, skipna=False)
    if HELD_OUT in wide:
        looks["held out"] = wide[HELD_OUT]
    return looks.reset_index()


def study_markdown(table: pd.DataFrame, *, plan: Config, provenance: Provenance) -> str:
    """The means over the seeds as a table, a row for each variant and look.

    Raises:
        ResultsError: a variant has no row.
    """
    looks = means(table)
    columns = [str(name) for name in looks if name not in ("variant", "seed", "minutes")]
    rows = []
    for variant, entry in plan["variants"].items():
        own = looks[looks["variant"] == variant]
        if own.empty:
            raise ResultsError(f"fixed_points.variants.{variant}: there is no result of it")
        for minutes, look in own.groupby("minutes"):
            row = [entry["label"], f"{minutes:g}"]
            row += [_number(look[name], name) for name in columns]
            rows.append(row)
    header = ["trained", "minutes", *columns]
    alignment = ["left", *["right"] * (len(header) - 1)]
    body = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    seeds = len(plan["seeds"])
    over = "one seed" if seeds == 1 else f"mean over {seeds} seeds ± standard deviation"
    said = (
        f"Mean PSNR (dB) at the zeros of D + s²G on {plan['images']} centre crops of "
        f"{plan['crop']} pixels of {provenance.test_set}, after so many minutes of one core; "
        f"{over}. Every variant has all five parts (kept iterates, back-propagation through the "
        "semi-implicit step, the loss in dB, weak noise, a start from the score) except for what "
        "its name says."
    )
    return f"# {TITLE}\n\n{said}\n\n{body}\n\n{footnotes(provenance.brief())}\n"


def _number(values: pd.Series, name: str) -> str:
    if name in ("updates", "calls"):
        return f"{values.mean():.0f}"
    if not values.map(math.isfinite).all():
        return "diverged"
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}".replace("-", MINUS)


def study_figure(table: pd.DataFrame, *, plan: Config, provenance: Provenance) -> Figure:
    """Draw the mean PSNR over the minutes and over the calls, a line per variant, a dot per seed.

    The axes end `DEEPEST_DB` under the best look, and a training that is worse leaves them.

    Raises:
        ResultsError: there are more variants than styles.
    """
    if len(plan["variants"]) > len(STYLES):
        raise ResultsError(f"{len(plan['variants'])} variants; the figure can tell {len(STYLES)}")
    looks = means(table)
    foot = f"{plan['images']} crops of {provenance.test_set} \N{MIDDLE DOT} {provenance.short()}"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH, 9.6 * CM, foot=foot)
        left, right = figure.subplots(1, 2, sharey=True)
        for (variant, entry), style in zip(plan["variants"].items(), STYLES, strict=False):
            own = looks[looks["variant"] == variant]
            for axes, cost in ((left, "minutes"), (right, "calls")):
                _draw(axes, own, cost, label=entry["label"], style=style)
        left.set_xlabel("minutes of one core")
        right.set_xlabel("calls of G")
        right.set_xscale("symlog", linthresh=100)
        left.set_ylabel("mean PSNR at the zeros (dB), ours")
        left.set_ylim(bottom=looks["all twelve"].max() - DEEPEST_DB)
        legend_below(figure, left.get_legend_handles_labels()[0], columns=2)
    return figure


def gradients_figure(table: pd.DataFrame, *, plan: Config, provenance: Provenance) -> Figure:
    """Draw the norm of each gradient and its cosine with the true one over sigma, by problem.

    Args:
        table: with the columns of `rglib.studies.gradients.COLUMNS`.
        plan: the configuration's section fixed_points.
        provenance: what made the numbers; goes to the foot.
    """
    kinds = list(dict.fromkeys(table["problem"].str.rpartition(", ")[0]))
    crops = plan["gradients"]
    said = f"{crops['images']} crops of {crops['crop']} pixels of {provenance.test_set}"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(
            TEXT_WIDTH, 10.2 * CM, foot=f"{said} \N{MIDDLE DOT} {provenance.short()}"
        )
        panels = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
        for column, kind in enumerate(kinds):
            own = table[table["problem"].str.startswith(f"{kind}, ")]
            for (name, terms), style in zip(GRADIENTS, STYLES, strict=False):
                line = own[(own["map"] == name) & (own["terms"] == terms)]
                for axes, value in zip(panels[:, column], ("norm", "cosine"), strict=True):
                    colour, marker, dashes = style
                    axes.plot(
                        line["sigma_255"],
                        line[value],
                        color=colour,
                        marker=marker,
                        markersize=3,
                        linestyle=dashes,
                        linewidth=1,
                        label=GRADIENTS[name, terms],
                    )
                    axes.grid()
            panels[0, column].set_title(kind, loc="left", fontsize=8, pad=3)
            panels[0, column].set(xscale="log", yscale="log")
            panels[1, column].set_xlabel("noise level σ, of 255")
            panels[1, column].set_xticks(sorted(set(own["sigma_255"])))
            panels[1, column].xaxis.set_major_formatter("{x:g}")
        panels[0, 0].set_ylabel("norm of the gradient")
        panels[1, 0].set_ylabel("cosine with the true one")
        legend_below(figure, panels[0, 0].get_legend_handles_labels()[0], columns=3)
    return figure


GRADIENTS = {  # what rglib.studies.gradients compares, as the legend calls it
    ("implicit", 0): "true (implicit)",
    ("gradient", 0): "JFB through g",
    ("gradient", 5): "g and 5 Neumann terms",
    ("semi_implicit", 0): "JFB through the semi-implicit step",
    ("semi_implicit", 5): "the same and 5 Neumann terms",
}
STYLES = [(s.colour, s.marker, "solid") for s in CURVE_STYLES] + [
    (s.colour, s.marker, "dashed") for s in CURVE_STYLES
]


def _draw(
    axes: Axes, looks: pd.DataFrame, cost: str, *, label: str, style: tuple[str, str, str]
) -> None:
    colour, marker, line = style
    over_seeds = looks.groupby("minutes")[[cost, "all twelve"]].mean()
    common: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3}
    axes.plot(
        over_seeds[cost],
        over_seeds["all twelve"],
        linestyle=line,
        linewidth=1,
        label=label,
        **common,
    )
    axes.plot(looks[cost], looks["all twelve"], linestyle="none", alpha=0.4, **common)
    axes.grid()
