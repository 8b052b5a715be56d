"""The table with LPIPS beside PSNR and SSIM, for the target ``lpips``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from tabulate import tabulate

from rglib.records.columns import COLUMN_DESCRIPTIONS
from rglib.records.provenance import Provenance
from rglib.report.evaluations import (
    ResultsError,
    failures,
    footnotes,
    problem_title,
    summarise,
    write_csv,
    write_text,
)
from rglib.report.job import Job
from rglib.report.results import results_of

KEY = ["method", "seed", "problem_id", "image"]
COLUMNS = {name: COLUMN_DESCRIPTIONS[name] for name in (*KEY, "psnr_db", "ssim", "outcome")} | {
    "lpips": (
        "LPIPS 0.1 with AlexNet of the result, as an image of 8 bits, by torchmetrics: lower "
        "is better; empty where the restoration did not finish"
    )
}
DECIMALS = {"psnr_db": 2, "ssim": 3, "lpips": 3}


def write_lpips(job: Job) -> None:
    """``lpips.csv``, a row for each method, problem and image, and the means as Markdown."""
    title = "Restorations with LPIPS beside PSNR and SSIM"
    results = with_lpips(results_of(job), job.inputs.tables)
    write_csv(
        results[list(COLUMNS)],
        job.outputs.csv,
        title=f"{title}, one row per method, problem and image",
        provenance=job.provenance,
        descriptions=COLUMNS,
    )
    text = lpips_markdown(results, labels=job.labels(), provenance=job.provenance)
    write_text(text, job.outputs.md, title=f"{title}, means", provenance=job.provenance)


def with_lpips(results: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    """Put the column ``lpips`` of these CSV files, with `KEY`, beside the results.

    It is nan where the restoration did not finish, whatever its image has.

    Raises:
        ResultsError: a result has no row in them.
    """
    text = {name: str for name in KEY if name != "seed"}  # an image may be called 0001 or null
    tables = [pd.read_csv(path, dtype=text, keep_default_na=False) for path in paths]
    keys = results[KEY].reset_index(drop=True)
    values = keys.merge(pd.concat(tables), on=KEY, how="left", validate="one_to_one")["lpips"]
    if values.isna().any():
        lacking = keys[values.isna()].iloc[0]
        raise ResultsError(
            f"no LPIPS of {lacking['method']} on {lacking['problem_id']}, seed {lacking['seed']}, "
            f"image {lacking['image']}; add --forcerun lpips_of_method"
        )
    finished = (results["outcome"] == "finished").to_numpy()
    return results.assign(lpips=values.where(finished).to_numpy())


def lpips_markdown(
    results: pd.DataFrame, *, labels: Mapping[str, str], provenance: Provenance
) -> str:
    """Lay the means over images and seeds out: a row for each problem and method, the best bold.

    Args:
        results: what `with_lpips` returns.
        labels: readable names of the methods, by id.
        provenance: ends the text.
    """
    means = results.groupby(["method", "problem_id"])["lpips"].agg(
        lambda values: values.mean(skipna=False)
    )
    summary = summarise(results).join(means, on=["method", "problem_id"]).round(DECIMALS)
    by_problem = summary.groupby("problem_id")
    best = by_problem[["psnr_db", "ssim"]].max().join(by_problem["lpips"].min())
    rows = []
    for problem in dict.fromkeys(summary["problem_id"]):
        for _, row in summary[summary["problem_id"] == problem].iterrows():
            values = [
                _cell(row[name], decimals, best=bool(row[name] == best.at[problem, name]))
                for name, decimals in DECIMALS.items()
            ]
            failed = failures(row)
            name = labels[row["method"]]
            rows.append([problem_title(problem), name, *([failed] * 3 if failed else values)])
    headers = ["problem", "method", "PSNR (dB)", "SSIM", "LPIPS (lower is better)"]
    return "\n\n".join(
        [
            "# LPIPS beside PSNR and SSIM",
            f"Means over the images of {provenance.images}; the best of each problem is bold. "
            "LPIPS is computed on images rounded to 8 bits. The paper reports none.",
            tabulate(rows, headers, tablefmt="pipe", disable_numparse=True),
            footnotes(provenance.brief()),
        ]
    )


def _cell(value: float, decimals: int, *, best: bool) -> str:
    text = "" if math.isnan(value) else f"{value:.{decimals}f}"
    return f"**{text}**" if best else text
