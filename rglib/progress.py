"""Progress of long work: a bar on a terminal with the time left, lines in a log.

Jobs that run side by side share a terminal: where `BARS` names a folder, each writes its bar into a
file there, and the `Board` of the process that started them draws all, one below the other.

Nothing here moves a number: a change of this module makes no result stale, see
`rglib.records.code_hash.MODULES_WITHOUT_NUMBERS`.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NoReturn, Protocol

from tqdm import tqdm

LOGGER = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two lines of a log
LINE = "{desc}: {unit} {n_fmt} of {total_fmt}{postfix}, {remaining} left"
LINE_WITHOUT_TOTAL = "{desc}: {unit} {n_fmt}{postfix}, {elapsed} so far"
BARS = "RGLIB_BARS"  # the variable with the folder of a board, for the jobs it shows
REDRAWN = 0.5  # seconds between two looks at a bar
ROOM = 0.3  # seconds that bars stay away for what another thread has to say
BYTE, PIXEL = "byte", "pixel"  # units that are told in thousands and millions


class Advance(Protocol):
    """Tells of what is done, see `progress`."""

    def __call__(self, n: int = 1, *, note: str | None = None) -> None:
        """``n`` more are done; ``note``, such as a loss, stays until there is another one."""


def on_terminal() -> bool:
    """Whether somebody may look at standard error; it may be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


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
    board = os.environ.get(BARS) if shown else None
    where = sys.stderr if shown and not board and on_terminal() else _Nowhere()
    line = LINE_WITHOUT_TOTAL if total is None else LINE
    said = drawn = monotonic()
    bar: tqdm[NoReturn] = tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit in (BYTE, PIXEL),
        file=where,
    )

    file = Path(board, f"{os.getpid()}-{id(bar)}") if board else None

    def draw() -> None:
        if file:
            columns = shutil.get_terminal_size().columns
            text = bar.format_meter(**{**bar.format_dict, "ncols": columns - 1})
            with suppress(OSError):  # no job fails for a bar; the board may be on another machine
                partial = file.with_name(f".{file.name}")
                partial.write_text(text, encoding="utf-8")
                os.replace(partial, file)

    def advance(n: int = 1, *, note: str | None = None) -> None:
        nonlocal said, drawn
        if note is not None:
            bar.set_postfix_str(note, refresh=False)
        bar.update(n)
        if monotonic() - drawn >= REDRAWN:
            drawn = monotonic()
            draw()
        if shown and monotonic() - said >= INTERVAL:
            said = monotonic()
            LOGGER.info("%s", bar.format_meter(**{**bar.format_dict, "bar_format": line}))

    draw()
    try:
        with bar:
            yield advance
    finally:
        if file:
            with suppress(OSError):
                file.unlink(missing_ok=True)


class Board:
    """Draws the bars of jobs, one below the other, on stderr, which is a terminal.

    Attributes:
        folder: of the files that the jobs write their bars into; jobs find it by `BARS`.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rglib-bars-"))
        self._lines: dict[str, tqdm[NoReturn]] = {}
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, daemon=True)
        self._thread.start()

    def make_room(self) -> None:
        """Take the bars away for a moment, so that a line can be written in their place."""
        with self._lock:
            for line in self._lines.values():
                line.clear()
            self._away_until = monotonic() + ROOM

    def close(self) -> None:
        """Take the bars away for good, and the folder."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._drop(set(self._lines))
        shutil.rmtree(self.folder, ignore_errors=True)

    def draw(self) -> None:
        """Draw the bars as they are now, and drop those of jobs that have ended."""
        with self._lock:
            if monotonic() < self._away_until:
                return
            texts = {}
            for file in sorted(self.folder.glob("[!.]*")):
                with suppress(OSError):
                    texts[file.name] = file.read_text(encoding="utf-8")
            self._drop(self._lines.keys() - texts.keys())
            for name, text in texts.items():
                if name not in self._lines:
                    self._lines[name] = tqdm(
                        bar_format="{desc}", leave=False, file=sys.stderr, dynamic_ncols=True
                    )
                self._lines[name].set_description_str(text)

    def _draw_on(self) -> None:
        while not self._ended.wait(REDRAWN):
            self.draw()

    def _drop(self, names: set[str]) -> None:
        for name in names:
            self._lines.pop(name).close()


class _Nowhere(io.TextIOBase):
    """A bar that nobody sees still measures how fast the work is."""

    def write(self, text: str) -> int:
        return len(text)
