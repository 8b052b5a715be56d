"""The table of the ablations: each beside the method that it changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from rglib.plan.ablations import references
from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.records.provenance import Provenance
from rglib.report.evaluations import (
    MINUS,
    footnotes,
    problem_title,
    read_results,
    summarise,
    write_csv,
    write_text,
)
from rglib.report.job import Job

Config = Mapping[str, Any]

COLUMNS = {
    "ablation": "id of the ablation, as in the configuration; of the method where it is unchanged",
    "reading": "number of the reading in docs/readings.md; empty for what is none of them",
    "method": COLUMN_DESCRIPTIONS["method"],
    "label": "what is changed; empty for the unchanged method",
    "change": "the changed entries of the configuration, as JSON; empty for the unchanged method",
    "psnr_db": "PSNR of the result in dB, mean over problems and images",
    "ssim": "SSIM of the result, mean over problems and images",
    "psnr_change_db": "psnr_db less that of the unchanged method",
}


def descriptions(problems: Sequence[str]) -> dict[str, str]:
    """The columns of `ablation_table` and what they hold."""
    changes = {
        _change_column(problem): f"PSNR on {problem} less that of the unchanged method, in dB"
        for problem in problems
    }
    return COLUMNS | changes


def write_ablations(job: Job) -> None:
    """The table of the ablations as CSV and Markdown."""
    ablations, problems = job.params.ablations, job.problems
    methods = dict.fromkeys([*references(ablations), *ablations], job.config["seeds"][:1])
    results = read_results(job.inputs.evaluations, methods=methods, problems=problems)
    table = ablation_table(summarise(results), ablations=ablations, problems=problems)
    title = "Ablations: what the paper leaves open, read another way"
    write_csv(
        table,
        job.outputs.csv,
        title=title,
        provenance=job.provenance,
        descriptions=descriptions(problems),
    )
    labels = job.labels(references(ablations))
    text = ablations_markdown(table, labels=labels, provenance=job.provenance)
    write_text(text, job.outputs.md, title=title, provenance=job.provenance)


def ablation_table(
    summary: pd.DataFrame, *, ablations: Mapping[str, Config], problems: Sequence[str]
) -> pd.DataFrame:
    """Compare ablations with the methods that they change.

    Args:
        summary: what `rglib.report.evaluations.summarise` returns, for the ablations and those
            methods.
        ablations: their entries in the configuration, by id.
        problems: ids of the problems.

    Returns:
        Each method in a row and its ablations in the rows below, with the columns of
        `descriptions`. A mean or change is nan where a restoration did not finish.
    """
    psnr, ssim = (
        summary.pivot(index="method", columns="problem_id", values=metric)[list(problems)]
        for metric in ("psnr_db", "ssim")
    )

    def row(name: str, method: str, told: Config) -> dict[str, Any]:
        means = {
            "psnr_db": psnr.loc[name].mean(skipna=False),
            "ssim": ssim.loc[name].mean(skipna=False),
        }
        changes = psnr.loc[name] - psnr.loc[method] if told else pd.Series(math.nan, psnr.columns)
        return {
            "ablation": name,
            "method": method,
            **told,
            **means,
            "psnr_change_db": changes.mean(skipna=False),
            **{_change_column(problem): changes[problem] for problem in problems},
        }

    rows = []
    for method in references(ablations):
        rows.append(row(method, method, {}))
        for name, ablation in ablations.items():
            if ablation["method"] == method:
                rows.append(row(name, method, _told(ablation)))
    table = pd.DataFrame(rows, columns=list(descriptions(problems)))
    return table.astype({"reading": "Int64"})


def ablations_markdown(
    table: pd.DataFrame, *, labels: Mapping[str, str], provenance: Provenance
) -> str:
    """Lay the table out in Markdown.

    Args:
        table: what `ablation_table` returns.
        labels: readable names of the unchanged methods, by id.
        provenance: ends the text.
    """
    changes = list(table.columns[len(COLUMNS) :])
    header = ["reading", "ablation", "PSNR (dB)", "SSIM", "change (dB)"]
    header += [problem_title(column.removesuffix(_change_column(""))) for column in changes]
    lines = [
        [
            "" if pd.isna(row["reading"]) else row["reading"],
            *_name(row, labels),
            _number(row["psnr_db"], ".2f"),
            _number(row["ssim"], ".4f"),
            *(
                "" if _is_reference(row) else _number(row[column], "+z.2f")
                for column in ("psnr_change_db", *changes)
            ),
        ]
        for _, row in table.iterrows()
    ]
    parts = [
        "# Ablations",
        f"What the paper leaves open, read another way, on {provenance.images}. PSNR and SSIM "
        "are those of the result, means over problems and images. The other columns are changes of "
        "the PSNR in dB against the unchanged method above, over all problems and problem by "
        "problem; what another seed changes is chance. `docs/readings.md` explains the readings.",
        tabulate(
            lines, header, tablefmt="pipe", disable_numparse=True, colalign=_alignment(header)
        ),
        footnotes(provenance.brief()),
    ]
    return "\n\n".join(parts) + "\n"


def _told(ablation: Config) -> dict[str, Any]:
    change = {key: ablation[key] for key in ("stage", "evaluation") if key in ablation}
    return {
        "reading": ablation.get("reading"),
        "label": ablation["label"],
        "change": json.dumps(change),
    }


def _change_column(problem: str) -> str:
    return f"{problem}_change_db"


def _is_reference(row: pd.Series) -> bool:
    return bool(row["ablation"] == row["method"])


def _name(row: pd.Series, labels: Mapping[str, str]) -> list[str]:
    method = labels[row["method"]]
    return [f"**{method}**" if _is_reference(row) else f"{method}, {row['label']}"]


def _number(value: float, form: str) -> str:
    return "diverged" if math.isnan(value) else format(value, form).replace("-", MINUS)


def _alignment(header: Sequence[str]) -> list[str]:
    return ["right", "left", *["right"] * (len(header) - 2)]
