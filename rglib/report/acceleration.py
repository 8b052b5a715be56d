"""The accelerated solver beside the paper's for a reader: the table, its summary and the figure.

Cost is counted in calls, the evaluations of G so far, in whole images: one on a quarter of the
pixels is a quarter. So iterate k of Adam has cost k calls, and that of semi_implicit those with
which it finds its step as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from tabulate import tabulate

from rglib import paper
from rglib.plan.acceleration import SOLVERS
from rglib.plan.names import copy_name, copy_of
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.records.provenance import Provenance
from rglib.report.evaluations import (
    AGAIN,
    MINUS,
    ResultsError,
    convergence,
    footnotes,
    problem_title,
    read_curves,
    read_results,
    write_csv,
    write_text,
)
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

CallsBefore = Mapping[str, Callable[[int, int], float]]

AIM_CALLS = 50  # of G, at most
AIM_DB = 0.05  # under the last iterate of Adam, at most
AIM_CONVERGED = 0.95  # of the fixed points in training, at least
AIM_TRAINING_CALLS = 100  # of G in the mean, at most
CALLS_DIGITS = 2  # behind the point
LADDER = 10  # every so many calls of Adam beyond AIM_CALLS have a row
LINES: dict[str, Any] = {"adam": (0, (2.5, 1.2)), "semi_implicit": "solid"}
AIMED_AT: dict[str, Any] = {"color": "0.7", "linewidth": 0.8}  # the line at `AIM_CALLS`
PANELS_ABREAST = 4


# --------------------------------------------------------------------------------------- numbers


def write_acceleration(
    job: Job, *, calls_before: CallsBefore, training_columns: Mapping[str, str]
) -> None:
    """The tables of the restorations and of the training as CSV, and their summary in Markdown.

    Args:
        job: of the copies that `rglib.plan.acceleration` makes.
        calls_before: as for `acceleration_table`.
        training_columns: of the table of the training, and what they hold.
    """
    plan, methods = job.params.acceleration, job.params.methods
    provenance = of_both_solvers(job.provenance, steps=plan["steps"])
    table = _table_of_job(job, calls_before=calls_before)
    write_csv(
        table,
        job.outputs.csv,
        title=title(plan["crop"]),
        provenance=provenance,
        descriptions=descriptions(adam_steps(table)),
    )
    training = job.table("training")[list(training_columns)]
    trained_on = ", ".join(job.config["data"]["train"])
    write_csv(
        training,
        job.outputs.training,
        title=f"The way to x_g in training, semi_implicit beside adam, crops of {trained_on}",
        provenance=provenance,
        descriptions=training_columns,
    )
    text = acceleration_markdown(
        table,
        training,
        labels=job.labels(methods),
        crop=plan["crop"],
        trained_on=trained_on,
        provenance=provenance,
    )
    write_text(text, job.outputs.md, title=title(plan["crop"]), provenance=provenance)


def _table_of_job(job: Job, *, calls_before: CallsBefore) -> pd.DataFrame:
    methods, problems = job.params.methods, job.problems
    copies = [copy_name(method, solver) for method in methods for solver in SOLVERS]
    seeds = {copy: job.config["seeds"][:1] for copy in copies}
    return acceleration_table(
        read_curves(job.inputs.curves, methods=copies, problems=problems),
        read_results(job.inputs.results, methods=seeds, problems=problems),
        calls_before=calls_before,
        methods=methods,
        problems=problems,
    )


def write_figure(job: Job) -> None:
    """The figure of ``acceleration.csv``."""
    plan = job.params.acceleration
    provenance = of_both_solvers(job.provenance, steps=plan["steps"])
    labels = job.labels(job.params.methods)
    figure = acceleration_figure(
        job.table("table"), labels=labels, crop=plan["crop"], provenance=provenance
    )
    save_both(figure, job, title=title(plan["crop"]), provenance=provenance)


def acceleration_table(
    curves: pd.DataFrame,
    results: pd.DataFrame,
    *,
    calls_before: CallsBefore,
    methods: Sequence[str],
    problems: Sequence[str],
) -> pd.DataFrame:
    """Mean PSNR after so many calls, for a ladder of them.

    Args:
        curves: what `rglib.report.evaluations.read_curves` returns of the copies of
            `rglib.plan.acceleration`.
        results: what `rglib.report.evaluations.read_results` returns of them, for the sizes of the
            images.
        calls_before: the first step, by solver, of a height and a width.
        methods: whose copies these are, in the order of the rows.
        problems: likewise.

    Returns:
        A row for each method, problem, solver and number of calls (of Adam's many a ladder), with
        the columns of `descriptions`. The first row of each is the starting point. nan where an
        image has no finite PSNR.

    Raises:
        ResultsError: there is no curve of a method and solver on a problem.
    """
    means, before = convergence(curves), _calls_before_first_step(results, calls_before)
    tables = []
    for method, problem in product(methods, problems):
        adam, ours = (_with_calls(means, before, method, problem, solver) for solver in SOLVERS)
        last = adam.iloc[-1]
        end = {adam_column(int(last["calls"])): last["psnr_db"]}
        tables += [_ladder(adam).assign(**end), ours.assign(**end)]
    table = pd.concat(tables, ignore_index=True)
    return table[list(descriptions(adam_steps(table)))]


def adam_column(steps: int) -> str:
    """The column for where Adam ends after so many steps."""
    return f"psnr_adam{steps}_db"


def adam_steps(table: pd.DataFrame) -> int:
    """After how many steps Adam ends in a table."""
    return int(table.loc[table["solver"] == "adam", "calls"].max())


def descriptions(steps: int) -> dict[str, str]:
    """The columns of `acceleration_table` and what they hold."""
    return {
        "method": COLUMN_DESCRIPTIONS["method"],
        "problem_id": COLUMN_DESCRIPTIONS["problem_id"],
        "solver": "adam, as in the paper, or semi_implicit",
        "calls": "evaluations of G so far, in whole images, those before the first step included",
        "psnr_db": "PSNR in dB after so many calls, mean over the images; empty if not finite",
        adam_column(steps): f"the same after {steps} steps of adam, the last",
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Whether the aim holds, for each method and problem of a table.

    Returns:
        A row for each, with ``method``, ``problem_id``, ``psnr_db`` (of semi_implicit after
        `AIM_CALLS`, or at its end if that comes before), ``adam_db`` (where Adam ends),
        ``difference_db``, ``calls`` (of semi_implicit, after which it stays within `AIM_DB` of
        that, or above; nan if it does not), ``holds`` (whether it is there after `AIM_CALLS`),
        ``adam_start_db``, ``adam_best_db``, ``adam_best_calls``, and ``adam_fails`` and
        ``semi_implicit_fails`` (whether each ends under its own start, or not finite).
    """
    groups = table.groupby(["method", "problem_id"], sort=False)
    return pd.DataFrame([_compared(curves) for _, curves in groups])


def _compared(curves: pd.DataFrame) -> dict[str, Any]:
    adam, ours = (curves[curves["solver"] == solver] for solver in SOLVERS)
    start, end = adam["psnr_db"].iloc[0], adam["psnr_db"].iloc[-1]
    our_start = ours["psnr_db"].iloc[0]
    best = adam.nlargest(1, "psnr_db").iloc[0]
    reached = ours.loc[ours["calls"] <= AIM_CALLS, "psnr_db"].iloc[-1]
    level = -math.inf if math.isnan(end) else end - AIM_DB  # anything finite is better than nan
    return {
        "method": curves["method"].iloc[0],
        "problem_id": curves["problem_id"].iloc[0],
        "psnr_db": reached,
        "adam_db": end,
        "difference_db": reached - end,
        "calls": _calls_to_stay(ours, level),
        "holds": bool(reached >= level),
        "adam_start_db": start,
        "adam_best_db": best["psnr_db"],
        "adam_best_calls": best["calls"],
        "adam_fails": not end >= start,
        "semi_implicit_fails": not reached >= our_start,
    }


def _calls_before_first_step(results: pd.DataFrame, calls_before: CallsBefore) -> pd.Series:
    """The mean over the images, for each copy and problem."""
    calls = [
        calls_before[copy_of(copy)[1]](height, width)
        for copy, height, width in results[["method", "height", "width"]].to_numpy()
    ]
    groups = results.assign(calls=calls).groupby(["method", "problem_id"])
    return groups["calls"].mean().round(CALLS_DIGITS)


def _with_calls(
    means: pd.DataFrame, before: pd.Series, method: str, problem: str, solver: str
) -> pd.DataFrame:
    of_copy = means["method"] == copy_name(method, solver)
    curve = means[of_copy & (means["problem_id"] == problem)]
    if curve.empty:
        raise ResultsError(f"no curve of {method} by {solver} on {problem}; {AGAIN}")
    calls = curve["iteration"] + before[copy_name(method, solver), problem]
    return curve.assign(method=method, solver=solver, calls=calls)


def _ladder(adam: pd.DataFrame) -> pd.DataFrame:
    calls = adam["calls"]
    kept: pd.DataFrame = adam[(calls <= AIM_CALLS) | (calls % LADDER == 0) | (calls == calls.max())]
    return kept


def _calls_to_stay(curve: pd.DataFrame, level: float) -> float:
    """The first calls from which on the PSNR is at a level or above; nan if there are none."""
    short = curve.loc[~(curve["psnr_db"] >= level), "calls"]
    stays = curve.loc[curve["calls"] > short.max(), "calls"] if len(short) else curve["calls"]
    return float(stays.min())


# ---------------------------------------------------------------------------------------- words


def part_of_images(crop: int | None) -> str:
    """What of each test image the numbers are of, for titles and texts."""
    if crop is None:
        return "whole images"
    return f"crops of {crop}x{crop} pixels in the middle of each image"


def title(crop: int | None) -> str:
    """One line on the numbers, for records and the metadata of figures."""
    return f"PSNR over calls of G, semi_implicit beside adam, {part_of_images(crop)}"


def of_both_solvers(provenance: Provenance, *, steps: Mapping[str, int]) -> Provenance:
    """The provenance of numbers that these solvers made instead of the configured one."""
    both = " beside ".join(steps)
    return replace(
        provenance,
        solver=both,
        iterations=steps["adam"],
        tolerance=None,
        average=False,
        x0=paper.START,  # what differs between the solvers is said in the text
    )


def acceleration_markdown(
    table: pd.DataFrame,
    training: pd.DataFrame,
    *,
    labels: Mapping[str, str],
    crop: int | None,
    trained_on: str,
    provenance: Provenance,
) -> str:
    """Summarise the tables in Markdown.

    Args:
        table: what `acceleration_table` returns.
        training: tables of `rglib.studies.acceleration`.
        labels: readable names of the methods, by id.
        crop: see `part_of_images`.
        trained_on: what the batches in training are of.
        provenance: ends the text.
    """
    rows, steps = summary(table), adam_steps(table)
    parts = [
        "# The accelerated solver",
        f"semi_implicit beside {steps} steps of the paper's Adam, both to the zeros of "
        f"D + s^2 G. Means over the images of {provenance.images}, {part_of_images(crop)}; "
        "PSNR in dB. A call is an evaluation of G on a whole image; one on its middle counts by "
        f"the pixels. {_before(table)} calls come before the first step of semi_implicit. It "
        "starts completion from interpolated pixels, Adam, as in the paper, from grey ones. "
        "Its iterates are shown as means of the last eight. "
        "`docs/acceleration.md` explains the files.",
        said_of_the_aim(rows, steps=steps),
        said_of_failures(rows, labels=labels, steps=steps),
        _table_of_problems(table, rows, labels=labels, steps=steps),
        "## In training",
        said_of_training(training, trained_on=trained_on),
        _table_of_training(training, labels=labels),
        footnotes(provenance.brief()),
    ]
    return "\n\n".join(parts) + "\n"


def _before(table: pd.DataFrame) -> str:
    """How many calls semi_implicit has before its first step: ``2.25``, or from fewest to most."""
    of_ours = table[table["solver"] == "semi_implicit"]
    first = of_ours.groupby(["method", "problem_id"])["calls"].min()
    return " to ".join(dict.fromkeys(f"{calls:g}" for calls in (first.min(), first.max())))


def said_of_the_aim(rows: pd.DataFrame, *, steps: int) -> str:
    """On how many problems x methods the aim holds; ``rows`` are those of `summary`."""
    return (
        f"On **{rows['holds'].sum()} of {len(rows)}** problems x methods semi_implicit is within "
        f"{AIM_DB} dB of {steps} steps of Adam, or better, after at most {AIM_CALLS} calls. "
        "Where it is not, the difference is bold."
    )


def said_of_failures(rows: pd.DataFrame, *, labels: Mapping[str, str], steps: int) -> str:
    """Where the solvers end under their starting point, and what Adam does before."""
    adam, ours = rows[rows["adam_fails"]], rows[rows["semi_implicit_fails"]]
    alone = ours[~ours["adam_fails"]]
    said = (
        f"After {steps} steps Adam is under its starting point, or not finite, on {len(adam)} of "
        f"them; semi_implicit after at most {AIM_CALLS} calls on {len(ours)}, and on {len(alone)} "
        "where Adam is not"
    )
    names = [_place(row, labels) for _, row in alone.iterrows()]
    ways = [
        f"- Adam, {_place(row, labels)}: starts at "
        f"{row['adam_start_db']:.2f}, is at its best, {row['adam_best_db']:.2f}, after "
        f"{row['adam_best_calls']:.0f} calls, and ends at {_number(row['adam_db'], '.2f')}."
        for _, row in adam.iterrows()
    ]
    first = f"{said}: {'; '.join(names)}." if names else f"{said}."
    return "\n".join([first, *(["", *ways] if ways else [])])


def _place(row: pd.Series, labels: Mapping[str, str]) -> str:
    return f"{labels[row['method']]} on {problem_title(row['problem_id'])}"


def said_of_training(training: pd.DataFrame, *, trained_on: str) -> str:
    """Where the batches are from, and what is hoped for."""
    images = training.groupby(["method", "solver"])["images"].sum().iloc[0]
    return (
        f"On the way to x_g from the starting points of training: {images} crops of {trained_on}, "
        "for each method the same. The paper's rule says what has converged. The aim is a share "
        f"over {AIM_CONVERGED:.0%} and at most {AIM_TRAINING_CALLS} calls in the mean."
    )


def _table_of_problems(
    table: pd.DataFrame, rows: pd.DataFrame, *, labels: Mapping[str, str], steps: int
) -> str:
    ours = table.loc[table["solver"] == "semi_implicit", "calls"]
    header = [
        "method",
        "problem",
        f"after {ours[ours <= AIM_CALLS].max()} calls",
        f"{steps} steps of Adam",
        "difference",
        f"calls to stay within {AIM_DB} dB",
    ]
    lines = [
        [
            labels[row["method"]],
            problem_title(row["problem_id"]),
            _number(row["psnr_db"], ".2f"),
            _number(row["adam_db"], ".2f"),
            _difference(row),
            _number(row["calls"], ".0f", otherwise=f"over {ours.max()}"),
        ]
        for _, row in rows.iterrows()
    ]
    return _pipe(lines, header, texts=2)


def _difference(row: pd.Series) -> str:
    said = _number(row["difference_db"], "+z.3f")
    return said if row["holds"] else f"**{said}**"


def _table_of_training(training: pd.DataFrame, *, labels: Mapping[str, str]) -> str:
    key, counts = ["method", "solver"], ["converged", "diverged", "calls"]
    of_all = training[counts].mul(training["images"], axis=0).assign(images=training["images"])
    sums = of_all.groupby([training[name] for name in key], sort=False).sum()
    means = sums[counts].div(sums["images"], axis=0).reset_index()
    lines = [
        [
            labels[row["method"]],
            row["solver"],
            f"{row['converged']:.1%}",
            f"{row['diverged']:.1%}",
            f"{row['calls']:.1f}",
        ]
        for _, row in means.iterrows()
    ]
    return _pipe(lines, [*key, *counts], texts=len(key))


def _pipe(lines: Sequence[Sequence[str]], header: Sequence[str], *, texts: int) -> str:
    alignment = ["left"] * texts + ["right"] * (len(header) - texts)
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)


def _number(value: float, form: str, *, otherwise: str = "not finite") -> str:
    return otherwise if math.isnan(value) else format(value, form).replace("-", MINUS)


# --------------------------------------------------------------------------------------- figure


def acceleration_figure(
    table: pd.DataFrame, *, labels: Mapping[str, str], crop: int | None, provenance: Provenance
) -> Figure:
    """Draw the PSNR over the calls, a panel per problem, a colour per method, dashed for Adam.

    As in figure 2 a panel ends `DEEPEST_DB` under the starting point.

    Args:
        table: what `acceleration_table` returns.
        labels: readable names of the methods to draw, by id, in the order of the legend.
        crop: see `part_of_images`.
        provenance: what made the numbers; goes to the foot.

    Raises:
        ResultsError: there are more methods than colours.
    """
    if len(labels) > len(CURVE_STYLES):
        raise ResultsError(f"{len(labels)} methods; the figure can tell {len(CURVE_STYLES)} apart")
    colours = {method: s.colour for method, s in zip(labels, CURVE_STYLES, strict=False)}
    problems = list(dict.fromkeys(table["problem_id"]))
    rows = math.ceil(len(problems) / PANELS_ABREAST)
    foot = f"{part_of_images(crop)} \N{MIDDLE DOT} {provenance.short()}"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH, 3.8 * CM * rows + 1.6 * CM, foot=foot)
        panels = figure.subplots(rows, PANELS_ABREAST, sharex=True, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number < len(problems):
                _draw(axes, table[table["problem_id"] == problems[number]], colours)
                if number + PANELS_ABREAST >= len(problems):
                    axes.xaxis.set_tick_params(labelbottom=True)
                    axes.set_xlabel("calls of G", labelpad=2)
            else:
                axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel("PSNR (dB), ours", labelpad=2)
        handles = _legend(labels, colours)
        legend_below(figure, handles, columns=len(handles))
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, colours: Mapping[str, str]) -> None:
    for method, colour in colours.items():
        for solver in SOLVERS:
            curve = curves[(curves["method"] == method) & (curves["solver"] == solver)]
            shown = curve[curve["calls"] > 0]  # the axis is logarithmic
            axes.plot(
                shown["calls"],
                shown["psnr_db"],
                color=colour,
                linestyle=LINES[solver],
                linewidth=1,
            )
    axes.axvline(AIM_CALLS, zorder=0, **AIMED_AT)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    title = problem_title(str(curves["problem_id"].iloc[0])).replace(", ", ",\n")
    axes.set_title(title, loc="left", fontsize=8, pad=3)
    start = curves.groupby(["method", "solver"])["psnr_db"].first().min()
    axes.set_ylim(bottom=max(start - DEEPEST_DB, axes.get_ylim()[0]))
    axes.grid()


def _legend(labels: Mapping[str, str], colours: Mapping[str, str]) -> list[Line2D]:
    return [
        *(Line2D([], [], color=colours[method], label=label) for method, label in labels.items()),
        *(Line2D([], [], color="0.3", linewidth=1, linestyle=LINES[s], label=s) for s in SOLVERS),
        Line2D([], [], **AIMED_AT, label=f"{AIM_CALLS} calls"),
    ]
