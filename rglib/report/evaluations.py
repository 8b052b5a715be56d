"""From evaluations to tables: reading, averaging, the paper's values beside ours.

All numbers are means over the images of the test set, PSNR in dB, SSIM on [-1, 1]. The paper's
values are never mixed with ours: they have columns or rows of their own. A restoration that
diverged or went non-finite is never dropped from a mean: the mean is then nan, and a readable table
says ``diverged (2 of 5)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rglib import paper
from rglib.files import replacing
from rglib.records.columns import COLUMN_DESCRIPTIONS, OUTCOMES
from rglib.records.provenance import Provenance, headwords, write_record

RESULT_COLUMNS = (
    "method seed problem_id image height width psnr_start_db ssim_start psnr_db ssim psnr_best_db "
    "iteration_best iterations outcome residual_start residual seconds"
).split()
CURVE_COLUMNS = "method seed problem_id image iteration psnr_db".split()
TABLE_COLUMNS = (
    "table method problem_id psnr_db ssim psnr_best_db iterations converged seconds "
    "paper_psnr_db paper_ssim"
).split()
SPREAD_COLUMNS = "seeds psnr_std_db ssim_std".split()  # of tables of several seeds
CONVERGENCE_COLUMNS = "method problem_id iteration psnr_db".split()

OWN_TABLE = 3
TABLE_TITLES = {**paper.TABLE_TITLES, OWN_TABLE: "Problems that are not in the paper"}
PROBLEMS_PER_BLOCK = 4  # more columns than these cannot be read side by side
SIGNIFICANT = {"psnr_db": 2, "ssim": 3}  # decimals, as printed in the paper
MINUS = "\N{MINUS SIGN}"


AGAIN = "evaluate it again, with --forcerun evaluate"


class ResultsError(ValueError):
    """Evaluations that are incomplete or contradict themselves; the message names the file."""


# --------------------------------------------------------------------------------------- reading


def read_results(
    paths: Sequence[Path], *, methods: Mapping[str, Sequence[int]], problems: Sequence[str]
) -> pd.DataFrame:
    """Read evaluations and check that every method restored every image of every problem.

    Args:
        paths: CSV files with `RESULT_COLUMNS`, in any order and of any division.
        methods: ids of the methods that must be there, with the seeds of each.
        problems: ids of the problems that must be there.

    Returns:
        One row per method, problem, seed and image, in the order of ``methods``, ``problems``, the
        seeds and the images' names, with `RESULT_COLUMNS`.

    Raises:
        ResultsError: a column, method, problem or image is missing, unknown or there twice, or a
            restoration that finished has a metric that is no number. An exact one has an
            infinite PSNR.
    """
    results = _read(paths, RESULT_COLUMNS)
    where = ", ".join(str(path) for path in paths)
    _check_complete(results, where, methods=methods, problems=problems)
    unknown = set(results["outcome"]) - set(OUTCOMES)
    if unknown:
        raise ResultsError(f"{where}: outcome {sorted(unknown)} is none of {', '.join(OUTCOMES)}")
    finished = results[results["outcome"] == "finished"]
    bad = finished[finished[["psnr_db", "ssim"]].isna().any(axis=1)]
    if len(bad):
        row = bad.iloc[0]
        raise ResultsError(
            f"{where}: {row['method']} on {row['problem_id']}, image {row['image']}, is 'finished' "
            f"with PSNR {row['psnr_db']} and SSIM {row['ssim']}; {AGAIN}"
        )
    return _ordered(results, ["seed", "image"], methods=list(methods), problems=problems)


def read_curves(
    paths: Sequence[Path], *, methods: Sequence[str], problems: Sequence[str]
) -> pd.DataFrame:
    """Read PSNR curves: a row per method, problem, seed, image and iteration, `CURVE_COLUMNS`.

    Methods or problems other than those asked for are left out; none is required.

    Raises:
        ResultsError: a file lacks a column or is not there.
    """
    curves = _read(paths, CURVE_COLUMNS)
    wanted = curves["method"].isin(methods) & curves["problem_id"].isin(problems)
    order = ["seed", "image", "iteration"]
    return _ordered(curves[wanted], order, methods=methods, problems=problems)


def paper_tables() -> pd.DataFrame:
    """Tables 1 and 2 of the paper, tidy; ``method`` is the paper's name of it."""
    return pd.read_csv(paper.TABLES)


def paper_problems() -> list[str]:
    """Ids of the paper's twelve problems, in the order of its tables."""
    return list(dict.fromkeys(paper_tables()["problem_id"]))


def _read(paths: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    text = dict.fromkeys(("method", "problem_id", "image", "outcome"), str)
    frames = []
    for path in paths:
        if not Path(path).is_file():
            raise ResultsError(
                f"{path}: no such file; `snakemake {path}` writes it, with the same --configfile"
            )
        frame = pd.read_csv(
            path,
            dtype={c: text[c] for c in columns if c in text},
            keep_default_na=False,  # an image may be called null
            na_values=[""],
        )
        missing = [column for column in columns if column not in frame]
        if missing:
            raise ResultsError(
                f"{path}: column {', '.join(missing)} is missing; expected {', '.join(columns)}"
            )
        frames.append(frame[list(columns)])
    if not frames:
        raise ResultsError("no evaluation to read; configure at least one method")
    return pd.concat(frames, ignore_index=True)


def _check_complete(
    results: pd.DataFrame,
    where: str,
    *,
    methods: Mapping[str, Sequence[int]],
    problems: Sequence[str],
) -> None:
    key = ["method", "seed", "problem_id", "image"]
    images = sorted(set(results["image"]))
    trained = [(method, seed) for method, seeds in methods.items() for seed in seeds]
    expected = pd.MultiIndex.from_tuples(
        [(*run, problem, image) for run, problem, image in product(trained, problems, images)],
        names=key,
    )
    found = pd.MultiIndex.from_frame(results[key])
    faults = {
        "missing": expected.difference(found),
        "not configured": found.difference(expected),
        "there twice": found[found.duplicated()],
    }
    if not images:
        raise ResultsError(f"{where}: no rows; {AGAIN}")
    for fault, rows in faults.items():
        if len(rows):
            method, seed, problem, image = rows[0]
            raise ResultsError(
                f"{where}: {len(rows)} of {len(expected)} results {fault}, first: method {method}, "
                f"seed {seed}, problem {problem}, image {image}; {AGAIN}, or mend "
                "`methods`, `seeds` and `problems` of the configuration"
            )


def _ordered(
    frame: pd.DataFrame, then: Sequence[str], *, methods: Sequence[str], problems: Sequence[str]
) -> pd.DataFrame:
    ranks = {"method": list(methods), "problem_id": list(problems)}

    def rank(column: pd.Series) -> pd.Series:
        return column.map(ranks[column.name].index) if column.name in ranks else column

    return frame.sort_values(["method", "problem_id", *then], key=rank, ignore_index=True)


# ------------------------------------------------------------------------------------- averaging


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Average over the images and seeds and put the paper's values beside.

    Args:
        results: what `read_results` returns.

    Returns:
        One row per method and problem, ordered by table, method and problem, with `TABLE_COLUMNS`
        `SPREAD_COLUMNS` and ``restorations`` (their number). Means are nan where a restoration did
        not finish; ``converged`` is the share of those that did, on [0, 1]; ``seconds`` is a sum.
        The standard deviations are those of the seeds' means over the images, nan for a single
        seed. The paper's columns are nan where it has no value.
    """
    theirs = paper_tables().set_index(["method", "problem_id"])
    rows = []
    for key, group in results.groupby(["method", "problem_id"], sort=False):
        method, problem = map(str, key)
        finished = group["outcome"] == "finished"
        by_seed = group[finished].groupby("seed")[["psnr_db", "ssim"]].mean()
        spread = by_seed.std() if finished.all() else by_seed.std() * math.nan
        published = (paper.METHODS.get(method), problem)
        rows.append(
            {
                "table": table_of(problem),
                "method": method,
                "problem_id": problem,
                "psnr_db": group["psnr_db"].mean() if finished.all() else math.nan,
                "ssim": group["ssim"].mean() if finished.all() else math.nan,
                "psnr_best_db": group["psnr_best_db"].mean(skipna=False),
                "iterations": group["iterations"].mean(),
                "converged": finished.mean(),
                "seconds": group["seconds"].sum(),
                "paper_psnr_db": theirs["psnr_db"].get(published, math.nan),
                "paper_ssim": theirs["ssim"].get(published, math.nan),
                "seeds": group["seed"].nunique(),
                "psnr_std_db": spread["psnr_db"],
                "ssim_std": spread["ssim"],
                "restorations": len(group),
            }
        )
    summary = pd.DataFrame(rows, columns=[*TABLE_COLUMNS, *SPREAD_COLUMNS, "restorations"])
    return summary.sort_values("table", kind="stable", ignore_index=True)


def table_columns(summary: pd.DataFrame) -> list[str]:
    """The columns of a table's CSV, with `SPREAD_COLUMNS` where a method has several seeds."""
    return TABLE_COLUMNS + (SPREAD_COLUMNS if (summary["seeds"] > 1).any() else [])


def table_of(problem_id: str) -> int:
    """The table of a problem: of the paper's, 2 is super-resolution, 1 the rest; 3 all others."""
    if problem_id not in paper_problems():
        return OWN_TABLE
    return 2 if problem_id.startswith("sr") else 1


def convergence(curves: pd.DataFrame) -> pd.DataFrame:
    """Average PSNR curves over the images and seeds.

    Args:
        curves: what `read_curves` returns.

    Returns:
        One row per method, problem and iteration (0 is the starting point), `CONVERGENCE_COLUMNS`.
        nan where any image has no finite value, or its restoration ended before the others'.
    """
    if curves.empty:
        return pd.DataFrame(columns=CONVERGENCE_COLUMNS)
    first = (curves["iteration"] == 0).groupby([curves["method"], curves["problem_id"]])
    finite = curves["psnr_db"].where(np.isfinite(curves["psnr_db"]))
    groups = curves.assign(psnr_db=finite, curves=first.transform("sum")).groupby(
        ["method", "problem_id", "iteration"], sort=False
    )
    mean = groups["psnr_db"].mean().where(groups["psnr_db"].count() == groups["curves"].first())
    return mean.reset_index()[CONVERGENCE_COLUMNS]


# ------------------------------------------------------------------------------- readable tables


@dataclass(frozen=True)
class _Markup:
    """What differs between Markdown and LaTeX within a cell."""

    bold: Callable[[str], str]
    escape: Callable[[str], str]
    separator: str


_MARKDOWN = _Markup(bold=lambda text: f"**{text}**", escape=lambda text: text, separator=r" \| ")


def _escape_tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "σ": r"$\sigma$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "·": r"$\cdot$",
        MINUS: r"$-$",
        "<": r"$<$",
        ">": r"$>$",
    } | {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)


_LATEX = _Markup(bold=lambda text: rf"\textbf{{{text}}}", escape=_escape_tex, separator=r" $\mid$ ")


@dataclass(frozen=True)
class _RowGroup:
    """A heading and, for each method, its label and one cell per problem."""

    heading: str
    rows: tuple[tuple[str, ...], ...]


def problem_title(problem_id: str) -> str:
    """Name a problem for a reader: ``SR ×3 gaussian, σ = 0.01``; an unknown id stays as it is."""
    forms = (
        (r"completion(\d+)", "completion, {} % missing"),
        (r"deblur_s([\d.]+)", "deblurring, blur {} px"),
        (r"sr(\d)_([a-z]+)_n([\d.]+)", "SR ×{} {}, σ = {}"),
    )
    for pattern, form in forms:
        if match := re.fullmatch(pattern, problem_id):
            return form.format(*match.groups())
    return problem_id


def failures(row: pd.Series | Mapping[Hashable, Any]) -> str:
    """``""`` or, of a row of `summarise`, the words for what diverged: ``diverged (2 of 5)``."""
    failed = round((1 - row["converged"]) * row["restorations"])
    return f"diverged ({failed} of {row['restorations']:.0f})" if failed else ""


def markdown_table(
    summary: pd.DataFrame, *, table: int, labels: Mapping[str, str], provenance: Provenance
) -> str:
    """Lay a table out in Markdown: ours, and if it has a problem the paper's and the difference.

    The differences only where `Provenance.comparable`. First comes a sentence on what was compared
    and what came of it. Below table 1 is said how the run is unlike the paper, once for all.

    Args:
        summary: what `summarise` returns.
        table: 1 or 2 as in the paper, or 3 for the problems that are not in it.
        labels: readable names of the methods, by id.
        provenance: ends the text.

    Returns:
        The text. Cells read ``PSNR | SSIM``; the best of ours in a column is bold.
    """
    parts = [
        f"# Table {table}. {TABLE_TITLES[table]}",
        f"**{compared(summary[summary['table'] == table], labels, provenance)}**",
        _caption(provenance, table),
    ]
    for problems in _blocks(summary, table):
        header = ["PSNR (dB) \\| SSIM", *map(problem_title, problems)]
        lines = [_pipes(header), _pipes([":--", *[":-:"] * len(problems)])]
        for group in _row_groups(summary, problems, labels, _MARKDOWN, provenance):
            lines.append(_pipes([f"*{group.heading}*", *[""] * len(problems)]))
            lines += [_pipes(row) for row in group.rows]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, footnotes(_below(provenance, table))]) + "\n"


def latex_table(
    summary: pd.DataFrame, *, table: int, labels: Mapping[str, str], provenance: Provenance
) -> str:
    """Lay the same out in LaTeX, a ``table*`` that needs the package ``booktabs``.

    Arguments and content are those of `markdown_table`.
    """
    said = (
        f"{TABLE_TITLES[table]}.",
        compared(summary[summary["table"] == table], labels, provenance),
        _caption(provenance, table),
    )
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_escape_tex(' '.join(said))}}}",
        rf"\label{{tab:rglib-{table}}}",
    ]
    for problems in _blocks(summary, table):
        lines += _tabular(summary, problems, labels, provenance)
    notes = [rf"{_escape_tex(line)}\par" for line in _below(provenance, table)]
    lines += [r"\begin{flushleft}\footnotesize", *notes, r"\end{flushleft}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def number_of(count: int, noun: str) -> str:
    """``1 problem`` or ``12 problems``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def compared(rows: pd.DataFrame, labels: Mapping[str, str], provenance: Provenance) -> str:
    """What was compared, on which test set, and how far ours is from the paper's: one sentence.

    Args:
        rows: of `summarise`.
        labels: readable names of the methods, by id.
        provenance: says on which images.
    """
    shared = rows[rows["paper_psnr_db"].notna()]
    methods, problems = rows["method"].nunique(), rows["problem_id"].nunique()
    compared_on = f"{number_of(methods, 'method')} on {number_of(problems, 'problem')}"
    subject = f"{compared_on}, on {provenance.images}"
    if shared.empty:
        return f"{subject}: the paper has no values of these."
    if not provenance.comparable:
        return (
            f"{subject}: these images are not the paper's ({paper.TEST_SET}), so these numbers are "
            "not compared with the paper's."
        )
    if lost := int(shared["psnr_db"].isna().sum()):
        return f"{subject}: no mean, as restorations diverged in {lost} of {len(shared)} cells."
    differences = shared["psnr_db"] - shared["paper_psnr_db"]
    of_method = differences.groupby(shared["method"]).mean()
    worst, best = (
        f"{above_or_below(of_method[method])} ({labels[method]})"
        for method in (str(of_method.idxmin()), str(of_method.idxmax()))
    )
    return (
        f"{subject}: {above_or_below(differences.mean())} the paper's mean PSNR, "
        f"from {worst} to {best}."
    )


def above_or_below(difference: float, *, unit: str = "dB", decimals: int = 2) -> str:
    """A difference in words that fit its sign: ``0.76 dB above``."""
    side = "below" if round(difference, decimals) < 0 else "above"
    return f"{abs(difference):.{decimals}f} {unit} {side}"


def footnotes(lines: Sequence[str]) -> str:
    """End a Markdown text with lines on what made it."""
    return "\n".join(["---", "", *(f"- {line}" for line in lines)])


def _below(provenance: Provenance, table: int) -> list[str]:
    """The lines below a table; the others refer to the first."""
    return provenance.brief() if table == 1 else departures_elsewhere(provenance)


def departures_elsewhere(provenance: Provenance) -> list[str]:
    """Where it is said, once for a run's tables and claims, how it is unlike the paper."""
    said = "The lines below table 1 (table1.md) say how this run differs from the paper's."
    return [said, provenance.origin()] if provenance.departures() else [provenance.origin()]


def _tabular(
    summary: pd.DataFrame,
    problems: Sequence[str],
    labels: Mapping[str, str],
    provenance: Provenance,
) -> list[str]:
    header = [_escape_tex(problem_title(problem)) for problem in problems]
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(problems)}}}",
        r"\toprule",
        rf"{' & '.join([rf'PSNR (dB){_LATEX.separator}SSIM', *header])} \\",
    ]
    for group in _row_groups(summary, problems, labels, _LATEX, provenance):
        heading = rf"\emph{{{_escape_tex(group.heading)}}}"
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(problems) + 1}}}{{l}}{{{heading}}} \\",
            *(rf"{' & '.join(row)} \\" for row in group.rows),
        ]
    return [*lines, r"\bottomrule", r"\end{tabular}\par\medskip"]


def _caption(provenance: Provenance, table: int) -> str:
    departures = ", ".join(headwords(provenance.departures()))
    unlike = f" Unlike the paper: {departures}; see below." if departures else ""
    ours = "" if table == OWN_TABLE else f", ours above, the paper's on {paper.TEST_SET} below"
    return (
        f"Means over the images{ours}; the best of ours in each column is bold."
        f"{_spread(provenance)}{unlike}"
    )


def _spread(provenance: Provenance) -> str:
    seeds = provenance.seeds
    if len(seeds) == 1:
        return ""
    return (
        f" ± is the standard deviation over {len(seeds)} seeds of the training, around their mean; "
        "a method without it has given weights."
    )


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _blocks(summary: pd.DataFrame, table: int) -> Iterator[list[str]]:
    problems = list(dict.fromkeys(summary.loc[summary["table"] == table, "problem_id"]))
    for start in range(0, len(problems), PROBLEMS_PER_BLOCK):
        yield problems[start : start + PROBLEMS_PER_BLOCK]


def _row_groups(
    summary: pd.DataFrame,
    problems: Sequence[str],
    labels: Mapping[str, str],
    markup: _Markup,
    provenance: Provenance,
) -> list[_RowGroup]:
    """Rows ``ours``, ``the paper`` and ``difference``, as far as there are such."""
    block = summary[summary["problem_id"].isin(problems)].round(SIGNIFICANT)
    best = block.groupby("problem_id")[["psnr_db", "ssim"]].max()
    cells = block.set_index(["method", "problem_id"])

    def ours(cell: pd.Series, problem: str) -> str:
        if failed := failures(cell):
            return failed
        values = _pair(cell["psnr_db"], cell["ssim"])
        spreads = _pair(cell["psnr_std_db"], cell["ssim_std"])
        marked = [
            (markup.bold(value) if cell[metric] == best.at[problem, metric] else value)
            + (markup.escape(f" ± {spread}") if cell["seeds"] > 1 else "")
            for metric, value, spread in zip(("psnr_db", "ssim"), values, spreads, strict=True)
        ]
        return markup.separator.join(marked)

    def published(cell: pd.Series, problem: str) -> str:
        if math.isnan(cell["paper_psnr_db"]):
            return ""
        return markup.separator.join(_pair(cell["paper_psnr_db"], cell["paper_ssim"]))

    def difference(cell: pd.Series, problem: str) -> str:
        psnr = cell["psnr_db"] - cell["paper_psnr_db"]
        if math.isnan(psnr):
            return ""
        values = _pair(psnr, cell["ssim"] - cell["paper_ssim"], sign="+")
        return markup.separator.join(markup.escape(v.replace("-", MINUS)) for v in values)

    def group(heading: str, cell_text: Callable[[pd.Series, str], str]) -> _RowGroup:
        rows = (
            (
                markup.escape(labels[method]),
                *(cell_text(cells.loc[(method, problem)], problem) for problem in problems),
            )
            for method in dict.fromkeys(block["method"])
        )
        return _RowGroup(heading, tuple(rows))

    if set(problems).isdisjoint(paper_problems()):
        return [group("ours", ours)]
    if not provenance.comparable:
        return [
            group("ours", ours),
            group(f"the paper, on {paper.TEST_SET}: other images", published),
        ]
    return [
        group("ours", ours),
        group("the paper", published),
        group("difference, ours less the paper's", difference),
    ]


def _pair(psnr: float, ssim: float, *, sign: str = "") -> tuple[str, str]:
    return (
        f"{psnr:{sign}.{SIGNIFICANT['psnr_db']}f}",
        f"{ssim:{sign}.{SIGNIFICANT['ssim']}f}",
    )


# --------------------------------------------------------------------------------------- writing


def write_text(text: str, path: Path, *, title: str, provenance: Provenance) -> None:
    """Write a text file, whole or not at all, and its record.

    Args:
        text: all of it.
        path: of the file.
        title: one line on what it holds, for the record.
        provenance: what made it, for the record.
    """
    _write(text, path)
    write_record(Path(path), title=title, provenance=provenance)


def write_csv(
    frame: pd.DataFrame,
    path: Path,
    *,
    title: str,
    provenance: Provenance,
    descriptions: Mapping[str, str] = COLUMN_DESCRIPTIONS,
) -> None:
    """Write a CSV and its record, ``<path>-metadata.json`` in the manner of CSV on the Web.

    Args:
        frame: the table.
        path: of the CSV.
        title: one line on what it holds.
        provenance: what made it.
        descriptions: one for each of the frame's columns.
    """
    columns = [{"name": name, "dc:description": descriptions[name]} for name in map(str, frame)]
    _write(frame.to_csv(index=False, lineterminator="\n"), path)
    write_record(Path(path), title=title, provenance=provenance, table={"columns": columns})


def _write(text: str, path: Path) -> None:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
