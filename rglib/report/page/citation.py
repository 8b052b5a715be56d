"""How to cite, from ``CITATION.cff``: https://citation-file-format.github.io."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Citation:
    """A work to cite: in words, its address or ``""``, and as an entry of BibTeX."""

    words: str
    url: str
    bibtex: str


def citations(path: Path) -> list[Citation]:
    """The software and the works under its ``references``.

    Raises:
        KeyError: the file lacks a key that a citation needs.
    """
    software = yaml.safe_load(path.read_text(encoding="utf-8"))
    works = [("software", software), *(("inproceedings", r) for r in software["references"])]
    return [_citation(kind, work) for kind, work in works]


def _citation(kind: str, work: Mapping[str, Any]) -> Citation:
    authors = [_author(author) for author in work["authors"]]
    # in braces an entity's name is not taken apart
    keys = [name if "," in name else f"{{{name}}}" for name in authors]
    venue = work.get("collection-title") or f"Version {work['version']}"
    year = _year(work)
    fields = {
        "title": work["title"],
        "author": " and ".join(keys),
        "booktitle": work.get("collection-title"),
        "version": work.get("version"),
        "year": year,
        "doi": work.get("doi"),
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return Citation(
        words=f"{'; '.join(authors)}{f' ({year})' if year else ''}. {work['title']}. {venue}.",
        url=f"https://doi.org/{work['doi']}" if "doi" in work else "",
        bibtex="\n".join([f"@{kind}{{{_key(work)},", *lines, "}"]),
    )


def _author(author: Mapping[str, str]) -> str:
    """A person is ``Family, Given``; an entity has one name."""
    if "family-names" in author:
        return f"{author['family-names']}, {author['given-names']}"
    return author["name"]


def _key(work: Mapping[str, Any]) -> str:
    first = work["authors"][0].get("family-names") or work["title"].partition(":")[0]
    return f"{first.lower()}{_year(work)}"


def _year(work: Mapping[str, Any]) -> str:
    """That of a paper, or of the release of a software; ``""`` where neither is said."""
    return str(work.get("year") or work.get("date-released", ""))[:4]
