"""Files under ``results/`` that are tables: each function writes those of one rule."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from rglib.plan.open_settings import overlay_text
from rglib.report.evaluations import (
    convergence,
    latex_table,
    markdown_table,
    read_curves,
    read_results,
    summarise,
    table_columns,
    write_csv,
    write_text,
)
from rglib.report.job import Job


def write_results(job: Job) -> None:
    """``results.csv``: one row per method, problem and image."""
    write_csv(
        read_results(job.inputs.evaluations, methods=job.params.seeds, problems=job.problems),
        job.outputs.csv,
        title="Restorations, one row per method, problem and image",
        provenance=job.provenance,
    )


def results_of(job: Job) -> pd.DataFrame:
    """What `write_results` wrote, where it is an input."""
    return read_results([job.inputs.results], methods=job.params.seeds, problems=job.problems)


def write_convergence(job: Job) -> None:
    """``convergence.csv``: mean PSNR over the iterations."""
    curves = read_curves(
        job.inputs.curves, methods=list(job.config["methods"]), problems=job.problems
    )
    write_csv(
        convergence(curves),
        job.outputs.csv,
        title="PSNR over the iterations, mean over the images",
        provenance=job.provenance,
    )


def write_table(job: Job) -> None:
    """One of the paper's tables as CSV, Markdown and LaTeX."""
    summary, table, labels = summarise(results_of(job)), job.params.table, job.labels()
    title = f"Table {table}: means over images and seeds, ours beside the paper's"
    write_csv(
        summary.loc[summary["table"] == table, table_columns(summary)],
        job.outputs.csv,
        title=title,
        provenance=job.provenance,
    )
    for layout, path in ((markdown_table, job.outputs.md), (latex_table, job.outputs.tex)):
        text = layout(summary, table=table, labels=labels, provenance=job.provenance)
        write_text(text, path, title=title, provenance=job.provenance)


def write_rows(job: Job, *, columns: Mapping[str, str]) -> None:
    """The rows of several jobs, ``tables``, as one CSV with these columns, and what they hold."""
    write_csv(
        job.table("tables")[list(columns)],
        job.outputs.csv,
        title=job.params.title,
        provenance=job.provenance,
        descriptions=columns,
    )


def write_tuning(job: Job, *, columns: Mapping[str, str]) -> None:
    """What was tried out as CSV, and the best of it as an overlay of the configuration."""
    params, provenance = job.params, job.provenance
    title = (
        f"Tuned on centre crops, {params.crop} pixels, of {params.images} images of {params.data}"
    )
    table = job.table("tables")[list(columns)]
    write_csv(table, job.outputs.csv, title=title, provenance=provenance, descriptions=columns)
    overlay = overlay_text(table, [f"{title}.", *provenance.lines()])
    write_text(overlay, job.outputs.overlay, title=title, provenance=provenance)
