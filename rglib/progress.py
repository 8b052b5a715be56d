"""Progress of long work: a bar on a terminal with the time left, lines in a log.

Nothing here moves a number: a change of this module makes no result stale, see
`rglib.records.code_hash.MODULES_WITHOUT_NUMBERS`.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NoReturn, Protocol

from tqdm import tqdm

LOGGER = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two lines of a log
LINE = "{desc}: {unit} {n_fmt} of {total_fmt}{postfix}, {remaining} left"
LINE_WITHOUT_TOTAL = "{desc}: {unit} {n_fmt}{postfix}, {elapsed} so far"
BYTE, PIXEL = "byte", "pixel"  # units that are told in thousands and millions


class Advance(Protocol):
    """Tells of what is done, see `progress`."""

    def __call__(self, n: int = 1, *, note: str | None = None) -> None:
        """``n`` more are done; ``note``, such as a loss, stays until there is another one."""


@contextmanager
def progress(
    what: str, *, total: int | None, unit: str, done: int = 0, shown: bool = True
) -> Iterator[Advance]:
    """Show how far a work is while it lasts.

    On stderr as a bar, if that is a terminal; and to this module's logger, at level INFO, as a line
    every `INTERVAL` seconds. Both tell the time left, by how fast it went of late.

    Args:
        what: names the work.
        total: how many steps it has in all; None where nobody knows.
        unit: of what, in the singular; `BYTE` for bytes, `PIXEL` for pixels.
        done: how many of them an earlier run has done.
        shown: False shows nothing, as for all but the first of several processes.

    Yields:
        The function to call when something is done.
    """
    where = sys.stderr if shown and sys.stderr.isatty() else _Nowhere()
    line = LINE_WITHOUT_TOTAL if total is None else LINE
    said = monotonic()
    bar: tqdm[NoReturn] = tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit in (BYTE, PIXEL),
        file=where,
    )

    def advance(n: int = 1, *, note: str | None = None) -> None:
        nonlocal said
        if note is not None:
            bar.set_postfix_str(note, refresh=False)
        bar.update(n)
        if shown and monotonic() - said >= INTERVAL:
            said = monotonic()
            LOGGER.info("%s", bar.format_meter(**{**bar.format_dict, "bar_format": line}))

    with bar:
        yield advance


class _Nowhere(io.TextIOBase):
    """A bar that nobody sees still measures how fast the work is."""

    def write(self, text: str) -> int:
        return len(text)
