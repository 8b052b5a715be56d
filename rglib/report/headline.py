"""What the tables of a run say, in a few lines, for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rglib import paper
from rglib.records.provenance import RECORD_SUFFIX, comparable, headwords
from rglib.report.evaluations import MINUS, number_of


def headline(folder: Path, *, configuration: str, labels: Mapping[str, str]) -> str | None:
    """Where the tables are and what they come to: mean PSNRs, ours, the paper's, the difference.

    Ours alone on other images than the paper's, see `rglib.records.provenance.comparable`.

    Args:
        folder: of the results.
        configuration: the hash of the active one, see
            `rglib.records.provenance.configuration_hash`.
        labels: readable names of the methods, by id, in the order of the columns.

    Returns:
        A few lines; None where there are no tables, or they are of another configuration.
    """
    tables = [folder / f"table{number}.csv" for number in (1, 2)]
    records = [Path(f"{table}{RECORD_SUFFIX}") for table in tables]
    if not all(path.is_file() for path in [*tables, *records]):
        return None
    made_by = [json.loads(record.read_text("utf-8"))["dc:provenance"] for record in records]
    if any(provenance["configuration"] != configuration for provenance in made_by):
        return None
    values = pd.concat(map(pd.read_csv, tables))
    compared = values[values["paper_psnr_db"].notna()]
    of_method = {method: compared[compared["method"] == method] for method in labels}
    shown = {labels[method]: _means(rows) for method, rows in of_method.items() if len(rows)}
    said = made_by[0]
    lines = {"": list(shown), "ours": [f"{ours:.2f}" for ours, _ in shown.values()]}
    if comparable(said["test_set"]):
        lines["the paper"] = [f"{theirs:.2f}" for _, theirs in shown.values()]
        lines["difference"] = [f"{a - b:+.2f}".replace("-", MINUS) for a, b in shown.values()]
        aside = []
    else:
        aside = [f"These are not {paper.TEST_SET}, which the paper's values are of: no comparison."]
    unlike = ", ".join(headwords(said["departures"])) or "nothing"
    where = " and ".join(str(table.with_suffix(".md")) for table in tables)
    problems = compared["problem_id"].nunique()
    return "\n".join(
        [
            f"Mean PSNR in dB over {number_of(problems, 'problem')}, on {said['test_set']}:",
            *(
                f"  {name:<10}" + "".join(f"{cell:>9}" for cell in cells)
                for name, cells in lines.items()
            ),
            *aside,
            f"Unlike the paper: {unlike}.",
            f"The tables: {where}",
        ]
    )


def _means(rows: pd.DataFrame) -> tuple[float, float]:
    """Of a method, ours and the paper's; a restoration that did not finish leaves none."""
    return rows["psnr_db"].mean(skipna=False), rows["paper_psnr_db"].mean()
