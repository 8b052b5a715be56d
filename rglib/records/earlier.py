"""Results of other runs, set aside before a run writes its own: ``results/`` holds those of one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rglib.records.provenance import RECORD_SUFFIX

EARLIER = "earlier"  # the folder within results/ that has one for each run


def set_aside(folder: Path, *, run: str) -> Mapping[str, int]:
    """Move the results of other runs, each with its record, to ``<folder>/earlier/<their run>/``.

    There they replace what the same run has left before. What has no record that names a run stays
    where it is: it may be anyone's.

    Args:
        folder: of the results.
        run: the one that is about to write into it.

    Returns:
        The number of results that were moved, by run.
    """
    moved: Counter[str] = Counter()
    for record in sorted(folder.glob(f"*{RECORD_SUFFIX}")):
        other = _run_of(record)
        if other is None or other == run:
            continue
        there = folder / EARLIER / other
        there.mkdir(parents=True, exist_ok=True)
        result = record.with_name(record.name.removesuffix(RECORD_SUFFIX))
        if result.is_file():
            os.replace(result, there / result.name)
        os.replace(record, there / record.name)  # last: it says whose the result is
        moved[other] += 1
    return moved


def _run_of(record: Path) -> str | None:
    """The run that a record names, if it can be read and does, and can be a folder's name."""
    try:
        content: Any = json.loads(record.read_text(encoding="utf-8"))
        run = content["dc:provenance"]["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if isinstance(run, str) and Path(run).name == run else None
