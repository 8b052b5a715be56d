"""Write the page: its template, filled with what the modules beside this one prepare."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from rglib import paper
from rglib.records.provenance import Provenance, headwords
from rglib.report.claims import margin_text, said_of_claims
from rglib.report.evaluations import OWN_TABLE, compared, problem_title, summarise, write_text
from rglib.report.figures import CURVE_STYLES
from rglib.report.job import Job
from rglib.report.page import ASSETS, pictures
from rglib.report.page.charts import convergence_chart, fixed_points, training_charts
from rglib.report.page.citation import citations
from rglib.report.page.tables import METRICS, outcomes, tables
from rglib.report.results import results_of

TITLE = "Training methods for regularizing gradients, reproduced"


@dataclass(frozen=True)
class Material:
    """All that the page tells.

    Attributes:
        results: what `rglib.report.evaluations.read_results` returns.
        convergence: what `rglib.report.evaluations.convergence` returns.
        claims: what `rglib.report.claims.check_claims` returns.
        labels: readable names of the methods, by id, in the order of the tables.
        descending: the methods that restore by gradient descent, which figure 2 compares.
        images: the folder of the evaluations, as for `rglib.report.figures.fig1`.
        histories: ``history.csv`` of each stage that was trained, by its name.
        citation: ``CITATION.cff``.
        provenance: what made all this.
    """

    results: pd.DataFrame
    convergence: pd.DataFrame
    claims: pd.DataFrame
    labels: Mapping[str, str]
    descending: tuple[str, ...]
    images: Path
    histories: Mapping[str, Path]
    citation: Path
    provenance: Provenance

    @classmethod
    def of(cls, job: Job) -> Material:
        """What the rule for the page hands on."""
        histories = job.params.histories.items()
        return cls(
            results=results_of(job),
            convergence=job.table("convergence"),
            claims=job.table("claims"),
            labels=job.labels(),
            descending=tuple(job.params.descending),
            images=Path(job.params.folder),
            histories={stage: Path(path) for stage, path in histories},
            citation=Path(job.inputs.citation),
            provenance=job.provenance,
        )

    @property
    def curve_labels(self) -> dict[str, str]:
        """The labels with the descending methods first, so that these look as in figure 2."""
        others = [method for method in self.labels if method not in self.descending]
        return {method: self.labels[method] for method in (*self.descending, *others)}


def write_report(job: Job) -> None:
    """``report.html``: everything on one page."""
    write_page(Material.of(job), Path(job.outputs.html))


def write_page(material: Material, path: Path) -> None:
    """Write the page and its record.

    Raises:
        rglib.data.decoding.ImageError: a restored image is missing or cannot be read.
    """
    write_text(render(material), path, title=TITLE, provenance=material.provenance)


def render(material: Material) -> str:
    """The page as HTML, one text that holds everything."""
    environment = Environment(
        loader=PackageLoader("rglib.report.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = lambda name: (ASSETS / name).read_text(encoding="utf-8")
    return environment.get_template("page.html").render(_context(material))


def _context(material: Material) -> dict[str, Any]:
    results, labels, provenance = material.results, material.labels, material.provenance
    summary = summarise(results)
    problems = list(dict.fromkeys(results["problem_id"]))
    histories = {
        stage: pd.read_csv(path) for stage, path in material.histories.items() if path.is_file()
    }
    collection = pictures.collect(results, images=material.images, labels=labels)
    chosen = paper.FIGURE_2_PROBLEM if paper.FIGURE_2_PROBLEM in problems else problems[0]
    return {
        "title": TITLE,
        "provenance": provenance,
        "answer": compared(summary[summary["table"] != OWN_TABLE], labels, provenance),
        "claims_said": said_of_claims(material.claims["holds"], images=provenance.images),
        "unlike": ", ".join(headwords(provenance.departures())),
        "metrics": METRICS,
        "tables": tables(summary, labels, comparable=provenance.comparable),
        "labels": labels,
        "curve_labels": material.curve_labels,
        "descending": material.descending,
        "problems": {problem: problem_title(problem) for problem in problems},
        "chosen_problem": chosen,
        "colours": [style.colour for style in CURVE_STYLES],
        "collection": collection,
        "pictures": pictures,
        "histories": histories,
        "lost_histories": sorted(material.histories.keys() - histories.keys()),
        "fixed_points": {stage: fixed_points(history) for stage, history in histories.items()},
        "outcomes": outcomes(results, labels),
        "claims": [_claim(row) for row in material.claims.to_dict("records")],
        "citations": citations(material.citation),
        "plotly": get_plotlyjs(),
        "data": _as_json(
            {
                "convergence": {
                    problem: _plain(
                        convergence_chart(_of(material.convergence, problem), material.curve_labels)
                    )
                    for problem in problems
                },
                "training": {
                    stage: [
                        {"title": title, "figure": _plain(figure)}
                        for title, figure in training_charts(history)
                    ]
                    for stage, history in histories.items()
                },
                "pictures": collection.to_dict(),
            }
        ),
    }


def _of(convergence: pd.DataFrame, problem: str) -> pd.DataFrame:
    return convergence[convergence["problem_id"] == problem]


def _plain(figure: Figure) -> dict[str, Any]:
    """A figure as JSON types; what is not finite is null."""
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain


def _as_json(content: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _claim(row: Mapping[Hashable, Any]) -> dict[str, str]:
    return {key: row[key] for key in ("statement", "expected", "ours", "holds", "paper_holds")} | {
        f"{whose}margin": margin_text(
            row[f"{whose}margin"], row["unit"], problem_title(str(row[f"{whose}where"]))
        )
        for whose in ("", "paper_")
    }
