"""Claims as data: comparisons of methods in a file, checked on any table of results.

The paper's own are in ``rglib/paper/claims.yaml``; each is checked on our numbers and, as a check
of the check, on the paper's. A method that has no finite value on a problem, as one of its
restorations diverged, counts as minus infinity there: it loses against every method that finished.
A claim whose methods or problems are not there is not evaluable, and says why. No PyTorch here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pandas as pd
import yaml
from tabulate import tabulate

from rglib import paper
from rglib.extensions import closest
from rglib.records.provenance import Provenance
from rglib.report.evaluations import (
    MINUS,
    above_or_below,
    departures_elsewhere,
    footnotes,
    paper_tables,
    problem_title,
    summarise,
    write_csv,
    write_text,
)
from rglib.report.job import Job
from rglib.report.results import results_of

CLAIM_COLUMNS = (
    "claim statement expected unit ours holds margin where paper paper_holds paper_margin "
    "paper_where"
).split()

STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
CLAIM_SCHEMA = {
    "type": "object",
    "required": ["name", "statement", "value", "method", "against"],
    "oneOf": [{"required": ["at_least"]}, {"required": ["more_than"]}],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "statement": {"type": "string"},
        "stated": {"type": "string"},
        "value": {"type": "string"},
        "better": {"enum": ["higher", "lower"]},
        "unit": {"type": "string"},
        "of": {"enum": ["each problem", "the mean", "the rise"]},
        "method": {"type": "string"},
        "against": STRINGS,
        "problems": STRINGS,
        "at_least": {"type": "number"},
        "more_than": {"type": "number"},
        "count": {"type": "integer", "minimum": 1},
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["columns", "claims"],
    "additionalProperties": False,
    "properties": {
        "columns": {
            "type": "object",
            "required": ["method", "problem"],
            "additionalProperties": False,
            "properties": {"method": {"type": "string"}, "problem": {"type": "string"}},
        },
        "finished": {"type": "object", "additionalProperties": {"type": "string"}},
        "methods": {"type": "object", "additionalProperties": {"type": "string"}},
        "problems": STRINGS,
        "note": {"type": "string"},
        "claims": {"type": "array", "items": CLAIM_SCHEMA, "minItems": 1},
    },
}


class ClaimsError(ValueError):
    """A file of claims or a table that cannot be used; the message names it and what to do."""


class NotEvaluableError(LookupError):
    """Numbers a claim speaks of are not there; the message says which."""


@dataclass(frozen=True)
class Numbers:
    """What claims are checked on.

    ``values`` has, by column of the table, a frame with a row per problem and a column per method.
    ``curves`` has the columns method, problem, iteration and those of values.
    """

    values: Mapping[str, pd.DataFrame]
    curves: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["method", "problem", "iteration"])
    )

    @classmethod
    def of_run(cls, summary: pd.DataFrame, convergence: pd.DataFrame) -> Numbers:
        """Take ours from what `rglib.report.evaluations.summarise` and `convergence` return."""
        tidy, curves = (
            frame.rename(columns={"problem_id": "problem"}) for frame in (summary, convergence)
        )
        return cls({value: _wide(tidy, value) for value in ("psnr_db", "ssim")}, curves)

    @classmethod
    def of_paper(cls) -> Numbers:
        """Take the paper's, which has published no curve as numbers."""
        ids = {name: method for method, name in paper.METHODS.items()}
        tables = paper_tables().replace({"method": ids}).rename(columns={"problem_id": "problem"})
        return cls({value: _wide(tables, value) for value in ("psnr_db", "ssim")})


def _wide(tidy: pd.DataFrame, value: str) -> pd.DataFrame:
    # only a restoration that did not finish has no mean, and it loses against any other
    return tidy.pivot(index="problem", columns="method", values=value).fillna(-math.inf)


@dataclass(frozen=True)
class Verdict:
    """What a claim came to; ``holds`` is None where it is not evaluable and ``found`` says why.

    ``margin`` is by how much more than it states the claim holds, and negative by how much it
    fails; ``where`` names the problem that decides. Of a claim on so many of the problems it is the
    last of those that count.
    """

    holds: bool | None
    found: str
    margin: float = math.nan
    where: str = ""

    @property
    def word(self) -> str:
        """``yes``, ``no`` or ``not evaluable``."""
        return {True: "yes", False: "no", None: "not evaluable"}[self.holds]


@dataclass(frozen=True)
class Claim:
    """A method is better than the best of others, by a margin.

    Attributes:
        name: of its own among the claims of a file.
        statement: a sentence for people.
        value: the column of the table that is compared.
        method: what is claimed to be better.
        against: the others; the best of them counts.
        problems: on which; None takes all of the table.
        bound: the method less the best of the others must be at least this.
        strictly: it must be more.
        count: of the problems at least so many; None means all.
        of: each problem; the mean over them; or the rise, how many iterations fewer are needed for
            a ``share`` of what the one other gains on the one problem.
        share: of the gain, for the rise.
        better: whether a higher or a lower value is.
        unit: of the margin.
        expected: what was stated to be found.
        titles: of methods, for texts.
    """

    name: str
    statement: str
    value: str
    method: str
    against: tuple[str, ...]
    problems: tuple[str, ...] | None
    bound: float
    strictly: bool
    count: int | None = None
    of: Literal["each problem", "the mean", "the rise"] = "each problem"
    share: float = 0.5
    better: Literal["higher", "lower"] = "higher"
    unit: str = "dB"
    expected: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)

    def verdict(self, numbers: Numbers) -> Verdict:
        """Check the claim."""
        checks = {"each problem": self._each, "the mean": self._mean, "the rise": self._rise}
        try:
            return checks[self.of](numbers)
        except NotEvaluableError as missing:
            return Verdict(holds=None, found=f"not evaluable: {missing}")

    def _each(self, numbers: Numbers) -> Verdict:
        own, *others = self._pick(numbers)
        difference = _less(own, pd.concat(others, axis=1).max(axis=1))
        held, count = self._reached(difference), self.count or len(difference)
        decides = str(difference.nlargest(count).index[-1])
        margin = self._beyond(float(difference[decides]))
        if len(held) == 1:
            best = str(pd.concat(others, axis=1).loc[decides].idxmax())
            found = self._ahead(float(difference[decides]), best)
        else:
            found = f"{int(held.sum())} of {len(held)}"
        return Verdict(bool(held.sum() >= count), found, margin, decides)

    def _mean(self, numbers: Numbers) -> Verdict:
        own, *others = self._pick(numbers)
        means = pd.concat(others, axis=1).mean()
        difference = _less(own.mean(), means)
        margin, runner_up = self._beyond(float(difference.min())), str(difference.idxmin())
        sign, digits = self._sign, _decimals(self.unit)
        found = (
            f"{sign * own.mean():.{digits}f}, best of the others: "
            f"{sign * means[runner_up]:.{digits}f} ({self._title(runner_up)})"
        )
        holds = bool(self._reached(difference).all())
        return Verdict(holds, found, margin, "mean over the problems")

    def _rise(self, numbers: Numbers) -> Verdict:
        (problem,), (other,) = self.problems or (), self.against  # as read
        here = numbers.curves[numbers.curves["problem"] == problem]
        there = set(here["method"]) if self.value in here else set()
        if absent := [name for name in (self.method, other) if name not in there]:
            raise NotEvaluableError(f"no curve of {', '.join(absent)} on {problem}")
        curves = here.pivot(index="iteration", columns="method", values=self.value) * self._sign
        reference = curves[other].dropna()
        start, end = reference.iloc[0], reference.iloc[-1]
        sign, title = self._sign, self._title(other)
        if not end > start:
            raise NotEvaluableError(
                f"{title} ends at {sign * end:.2f}, no better than its start, {sign * start:.2f}"
            )
        level = start + self.share * (end - start)
        ours, theirs = (_crossing(curves[name], level) for name in (self.method, other))
        fewer = round(theirs - ours, 9) if math.isfinite(ours) else -math.inf
        found = f"{ours:.2f} iterations to {sign * level:.2f}, {title} {theirs:.2f}"
        holds = bool(self._reached(pd.Series([fewer])).all())
        return Verdict(holds, found, self._beyond(fewer), problem)

    def _pick(self, numbers: Numbers) -> list[pd.Series]:
        """The values of the method and of the others over the problems, higher is better."""
        if self.value not in numbers.values:
            raise NotEvaluableError(f"the table has no column {self.value}")
        wide = numbers.values[self.value]
        problems = list(wide.index) if self.problems is None else list(self.problems)
        methods = [self.method, *self.against]
        for kind, wanted, there in (
            ("method", methods, wide.columns),
            ("problem", problems, wide.index),
        ):
            if absent := [name for name in wanted if name not in there]:
                raise NotEvaluableError(f"no result of {kind} {', '.join(absent)}")
        columns = [wide.loc[problems, method] for method in methods]
        if self.better == "higher":
            return columns
        return [-column.replace(-math.inf, math.inf) for column in columns]

    def _reached(self, difference: pd.Series) -> pd.Series:
        return difference > self.bound if self.strictly else difference >= self.bound

    def _ahead(self, difference: float, other: str) -> str:
        """How far the method is from another one, in words: ``0.76 dB above DEQGD``."""
        if math.isinf(difference):
            return f"{self._title(other if difference > 0 else self.method)} did not finish"
        words = above_or_below(
            self._sign * difference, unit=self.unit, decimals=_decimals(self.unit)
        )
        return f"{words} {self._title(other)}"

    def _beyond(self, difference: float) -> float:
        return round(difference - self.bound, 9)

    def _title(self, method: str) -> str:
        return self.titles.get(method, method)

    @property
    def _sign(self) -> int:
        return 1 if self.better == "higher" else -1


def _less(ours: pd.Series | float, theirs: pd.Series) -> pd.Series:
    """Difference, cleared of rounding errors; minus infinity where neither has finished."""
    return (ours - theirs).round(9).fillna(-math.inf)


def _crossing(curve: pd.Series, level: float) -> float:
    """Iteration, linearly interpolated, at which a curve first reaches a level; inf if never."""
    curve = curve.dropna()
    reached = np.flatnonzero(curve >= level)
    if not len(reached):
        return math.inf
    first = int(reached[0])
    if first == 0:
        return float(curve.index[0])
    before, after = curve.index[first - 1 : first + 1]
    share = (level - curve[before]) / (curve[after] - curve[before])
    return float(before + share * (after - before))


# ------------------------------------------------------------------------------ files and tables


@dataclass(frozen=True)
class Claims:
    """A file of claims, and how the tables that it speaks of are to be read.

    Attributes:
        claims: in the order of the file.
        method: the table's column of methods.
        problem: the table's column of problems.
        finished: values by column that a row must have; one that has another counts as lost.
        titles: of methods, by their ids; a table may have either.
        note: what is to be said of the claims.
    """

    claims: tuple[Claim, ...]
    method: str
    problem: str
    finished: Mapping[str, str]
    titles: Mapping[str, str]
    note: str

    @classmethod
    def read(cls, path: Path) -> Claims:
        """Read a YAML file.

        Raises:
            ClaimsError: it is missing, no YAML, or says something that is not understood.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            told = " ".join(str(error).split())
            raise ClaimsError(f"{path}: cannot be read as YAML ({told})") from error
        _check(content, path)
        titles = content.get("methods", {})
        claims = tuple(_claim(entry, content, titles) for entry in content["claims"])
        return cls(
            claims=claims,
            method=content["columns"]["method"],
            problem=content["columns"]["problem"],
            finished=content.get("finished", {}),
            titles=titles,
            note=content.get("note", ""),
        )

    def numbers(
        self, table: Path, *, curves: Path | None = None, columns: Mapping[str, str] | None = None
    ) -> Numbers:
        """Read a CSV with a row per method and problem, or several, which are averaged.

        Args:
            table: the CSV.
            curves: another one with a row per method, problem and ``iteration``, for rises.
            columns: the table's names for columns that the claims name, where they differ.

        Raises:
            ClaimsError: a file is missing, no CSV, or has not the columns.
        """
        tidy = self._read(table, columns or {})
        values = [one for one in dict.fromkeys(claim.value for claim in self.claims) if one in tidy]
        tidy[values] = tidy[values].fillna(-math.inf)  # which no mean forgets, as it would nan
        means = tidy.groupby(["problem", "method"], sort=False)[values].mean().reset_index()
        found = {value: _wide(means, value) for value in values}
        if curves is None:
            return Numbers(found)
        along = self._read(curves, columns or {})
        if "iteration" not in along:
            raise ClaimsError(f"{curves}: has no column iteration")
        keys = ["method", "problem", "iteration"]
        along = along[[*keys, *(value for value in values if value in along)]]
        return Numbers(found, along.groupby(keys, as_index=False).mean())

    def _read(self, path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError) as error:
            told = " ".join(str(error).split())
            raise ClaimsError(f"{path}: cannot be read as CSV ({told})") from error
        named = {theirs: ours for ours, theirs in columns.items()}
        if absent := [name for name in named if name not in frame]:
            raise ClaimsError(f"{path}: {_no_column(absent[0], frame)}")
        frame = frame.rename(columns=named)
        for column in (self.method, self.problem):
            if column not in frame:
                raise ClaimsError(
                    f"{path}: {_no_column(column, frame)}; name it with --columns {column}=NAME, "
                    "or under `columns` of the claims"
                )
        frame = frame.rename(columns={self.method: "method", self.problem: "problem"})
        frame["method"] = frame["method"].replace({v: k for k, v in self.titles.items()})
        for value in {claim.value for claim in self.claims} & set(frame):
            frame[value] = self._numeric(frame, value, path)
        return frame

    def _numeric(self, frame: pd.DataFrame, value: str, path: Path) -> pd.Series:
        """A column as numbers, nan in rows that have not finished."""
        try:
            numbers: pd.Series = pd.to_numeric(frame[value])
        except (ValueError, TypeError) as error:
            raise ClaimsError(f"{path}: the column {value} must hold numbers: {error}") from error
        for column, wanted in self.finished.items():
            if column in frame:
                numbers = numbers.where(frame[column].astype(str) == wanted)
        return numbers.replace([math.inf, -math.inf], math.nan)


def _no_column(name: str, frame: pd.DataFrame) -> str:
    there = [str(column) for column in frame]
    return f"has no column {name}{closest(name, there)} (it has: {', '.join(there)})"


def _check(content: object, path: Path) -> None:
    """Find out whether a file of claims can be understood."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for error in sorted(validator.iter_errors(content), key=lambda one: list(map(str, one.path))):
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.path)
        said = error.message
        if error.validator == "oneOf":
            said = "must say either at_least or more_than, one of them"
        raise ClaimsError(f"{path}: {place.lstrip('.') or 'the file'}: {said}")
    assert isinstance(content, Mapping)  # by the schema
    names = [entry["name"] for entry in content["claims"]]
    for entry in content["claims"]:
        if names.count(entry["name"]) > 1:
            raise ClaimsError(f"{path}: two claims are called {entry['name']}")
        if entry.get("of") == "the rise":
            if len(entry.get("problems", ())) != 1 or len(entry["against"]) != 1:
                raise ClaimsError(f"{path}: {entry['name']}: a rise is of one problem, against one")
        if "count" in entry and entry.get("of", "each problem") != "each problem":
            raise ClaimsError(f"{path}: {entry['name']}: `count` is for a claim of each problem")


def _claim(entry: Mapping[str, Any], content: Mapping[str, Any], titles: Any) -> Claim:
    problems = entry.get("problems", content.get("problems"))
    optional = ("count", "of", "share", "better", "unit")
    return Claim(
        name=entry["name"],
        statement=entry["statement"],
        value=entry["value"],
        method=entry["method"],
        against=tuple(entry["against"]),
        problems=None if problems is None else tuple(problems),
        bound=entry["more_than"] if "more_than" in entry else entry["at_least"],
        strictly="more_than" in entry,
        expected=entry.get("stated", ""),
        titles=titles,
        **{key: entry[key] for key in optional if key in entry},
    )


@cache
def papers_claims() -> Claims:
    """The claims of the paper."""
    return Claims.read(paper.CLAIMS)


# -------------------------------------------------------------------------------------- reporting


def check_claims(ours: Numbers) -> pd.DataFrame:
    """Check each claim of the paper on our numbers and on the paper's.

    Returns:
        One row per claim with `CLAIM_COLUMNS`; ``holds`` is ``yes``, ``no`` or ``not evaluable``.
    """
    published = Numbers.of_paper()
    rows = []
    for claim in papers_claims().claims:
        mine, theirs = claim.verdict(ours), claim.verdict(published)
        rows.append(
            {
                "claim": claim.name,
                "statement": claim.statement,
                "expected": claim.expected,
                "unit": claim.unit,
                "ours": mine.found,
                "holds": mine.word,
                "margin": mine.margin,
                "where": mine.where,
                "paper": theirs.found,
                "paper_holds": theirs.word,
                "paper_margin": theirs.margin,
                "paper_where": theirs.where,
            }
        )
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def write_claims(job: Job) -> None:
    """The paper's claims, checked, as CSV and Markdown."""
    numbers = Numbers.of_run(summarise(results_of(job)), job.table("convergence"))
    checked = check_claims(numbers)
    title = "The paper's claims, checked on our numbers and on the paper's"
    write_csv(checked, job.outputs.csv, title=title, provenance=job.provenance)
    text = claims_markdown(checked, provenance=job.provenance)
    write_text(text, job.outputs.md, title=title, provenance=job.provenance)


def claims_markdown(checked: pd.DataFrame, *, provenance: Provenance) -> str:
    """Tell in Markdown which claims hold on our numbers, and by how much.

    Args:
        checked: what `check_claims` returns.
        provenance: ends the text.
    """
    rows = [
        (
            claim["statement"],
            claim["expected"],
            claim["ours"],
            f"**{claim['holds']}**",
            margin_text(claim["margin"], claim["unit"], problem_title(claim["where"])),
            claim["paper_holds"],
            margin_text(claim["paper_margin"], claim["unit"], problem_title(claim["paper_where"])),
        )
        for claim in checked.to_dict("records")
    ]
    headers = (
        "claim",
        "the paper states",
        "ours",
        "holds on ours",
        "margin on ours",
        "holds on the paper's numbers",
        "margin on the paper's",
    )
    parts = [
        "# The paper's claims, checked",
        f"**{said_of_claims(checked['holds'], images=provenance.images)}.**",
        "The columns *margin* say by how much. With + a claim holds and has this much to spare. "
        "With \N{MINUS SIGN} it fails by this much. The problem in brackets decides. "
        "A method that diverged on any image counts as minus infinity on that problem. "
        f"{papers_claims().note}",
        tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True),
    ]
    return "\n\n".join([*parts, footnotes(departures_elsewhere(provenance))]) + "\n"


def said_of_claims(holds: pd.Series, *, images: str) -> str:
    """How many claims hold: ``4 of the paper's 9 claims hold on Set5; 5 do not``.

    Args:
        holds: of each claim ``yes``, ``no`` or another word.
        images: on which.
    """
    count = Counter(holds)
    hold, fail = ("holds" if count["yes"] == 1 else "hold"), ("does" if count["no"] == 1 else "do")
    said = (
        f"{count['yes']} of the paper's {len(holds)} claims {hold} on {images}; "
        f"{count['no']} {fail} not"
    )
    others = len(holds) - count["yes"] - count["no"]
    return f"{said}; {others} cannot be evaluated" if others else said


def margin_text(margin: float, unit: str, where: str) -> str:
    """A margin with its unit and the problem that decides it; ``""`` where there is none."""
    if math.isnan(margin):
        return ""
    place = f" ({where})" if where else ""
    if math.isinf(margin):
        return f"{'+' if margin > 0 else MINUS}infinite{place}"
    digits = _decimals(unit)
    digits += round(margin, digits) == 0 != round(margin, digits + 1)  # a sign wants a digit
    return f"{margin:+.{digits}f} {unit}{place}".replace("-", MINUS, 1)


def _decimals(unit: str) -> int:
    return {"dB": 2, "iterations": 2}.get(unit, 4)


def verdicts_text(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> str:
    """Claims and verdicts for a terminal."""
    rows = [
        (
            claim.statement,
            verdict.word,
            verdict.found.removeprefix("not evaluable: "),
            margin_text(verdict.margin, claim.unit, verdict.where),
        )
        for claim, verdict in zip(claims, verdicts, strict=True)
    ]
    headers = ("claim", "holds", "found", "by")
    return tabulate(rows, headers=headers, disable_numparse=True, maxcolwidths=[48, None, 40, 36])
