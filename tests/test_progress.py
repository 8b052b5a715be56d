"""Bars and lines; what each long work tells is in the tests of its own module."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rglib import progress as module
from rglib.progress import BYTE, progress
from rglib.records.code_hash import MODULES_WITHOUT_NUMBERS, SOURCE_ROOT, code_hash


class Clock:
    """The time that `rglib.progress` and tqdm are told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("rglib.progress.monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO", "rglib.progress")
    return lambda: [record.getMessage() for record in caplog.records]


def work(steps, *, clock=None, seconds=0.0, total=None, **options):
    with progress("rerg", total=steps if total is None else total, unit="step", **options) as ahead:
        for _ in range(steps):
            if clock:
                clock.now += seconds
            ahead()


# --- lines ----------------------------------------------------------------------------------------


def test_a_log_has_a_line_every_half_minute_with_the_time_left(clock, lines):
    work(7, clock=clock, seconds=16, total=100)
    assert lines() == [
        "rerg: step 2 of 100, 26:08 left",
        "rerg: step 4 of 100, 25:36 left",
        "rerg: step 6 of 100, 25:04 left",
    ]


def test_what_an_earlier_run_has_done_took_no_time(clock, lines):
    work(6, clock=clock, seconds=16, total=100, done=40)
    assert lines()[-1] == "rerg: step 46 of 100, 14:24 left"


def test_quick_work_has_no_line(clock, lines):
    work(1000, clock=clock, seconds=0.02)
    assert lines() == []


def test_a_note_stays_until_there_is_another(clock, lines):
    with progress("rerg", total=4, unit="step") as advance:
        for note in ("loss 0.5", None, "loss 0.4", ""):
            clock.now += 30
            advance(note=note)
    assert [line.removeprefix("rerg: step ") for line in lines()] == [
        "1 of 4, loss 0.5, 01:30 left",
        "2 of 4, loss 0.5, 01:00 left",
        "3 of 4, loss 0.4, 00:30 left",
        "4 of 4, 00:00 left",
    ]


def test_bytes_are_told_in_millions_and_without_a_total_there_is_no_time_left(clock, lines):
    for total in (4_000_000, None):
        with progress("wed.rar", total=total, unit=BYTE) as advance:
            clock.now += 30
            advance(1_000_000)
    assert lines() == [
        "wed.rar: byte 1.00M of 4.00M, 01:30 left",
        "wed.rar: byte 1.00M, 00:30 so far",
    ]


# --- the bar --------------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_with_the_time_left(clock, terminal):
    with terminal() as seen, progress("rerg", total=8, unit="step") as advance:
        clock.now += 15
        advance(2, note="loss 0.5")
        bar = seen().split("\r")[-1]
    assert re.match(r"rerg: +25%\|.*\| 2/8 \[00:15<00:45, .*loss 0\.5\]", bar), bar


def test_a_closed_stderr_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress("work", total=1, unit="step") as advance:
        advance()


def test_without_a_terminal_nothing_is_written_to_stderr(clock, capfd):
    work(20, clock=clock, seconds=10)
    assert capfd.readouterr().err == ""


def test_other_processes_show_nothing(clock, lines, terminal):
    with terminal() as seen:
        work(20, clock=clock, seconds=10, shown=False)
        assert (seen(), lines()) == ("", [])


def test_an_error_passes_and_what_is_written_next_has_a_line_of_its_own(terminal):
    with terminal() as seen:
        with pytest.raises(KeyError), progress("rerg", total=8, unit="step") as advance:
            advance()
            raise KeyError("theirs")
        assert seen().endswith("\n")


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 50))
def test_any_amount_may_be_done_even_more_than_there_is(amounts, total):
    with progress("rerg", total=total, unit="step") as advance:
        for amount in amounts:
            advance(amount)


# --- bars side by side ----------------------------------------------------------------------------


def screen(text):
    """The lines that a terminal shows after this, and where its cursor is."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", text):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\x1b[A":
            row -= 1
        else:
            lines[row] = lines[row].ljust(column)
            lines[row] = lines[row][:column] + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines], (row, column)


@pytest.fixture
def board(monkeypatch):
    """A board that draws when it is told to."""
    monkeypatch.setattr("rglib.progress.REDRAWN", 0.0)
    monkeypatch.setattr(module.Board, "_draw_on", lambda self: None)
    board = module.Board()
    monkeypatch.setenv(module.BARS, str(board.folder))
    yield board
    board.close()


def test_bars_of_jobs_side_by_side_have_a_line_each_and_make_room(board, terminal):
    with terminal() as seen:
        with progress("gauss", total=8, unit="step") as first:
            with progress("rerg", total=4, unit="step") as second:
                first(2)
                second(3)
                assert seen() == ""  # jobs draw nothing themselves
                board.draw()
                text = seen()
                lines, _ = screen(text)
                assert re.match(
                    r"gauss: +25%\|.*\| 2/8 ", next(line for line in lines if "gauss" in line)
                )
                assert sum("gauss" in line for line in lines) == 1
                (own,) = [line for line in lines if "rerg" in line]
                assert re.match(r"rerg: +75%\|.*\| 3/4 ", own) and "gauss" not in own
                board.make_room()
                text += seen()
                lines, cursor = screen(text)
                assert not any(lines) and cursor == (0, 0)
                board.draw()
                assert seen() == ""  # for a moment the room is left free
            free = module.monotonic() + module.ROOM
            while module.monotonic() < free:
                pass
            board.draw()
            text += seen()
            lines, _ = screen(text)
            assert sum("gauss" in line for line in lines) == 1
            assert not any("rerg" in line for line in lines)  # it has ended
        board.close()
        assert not any(screen(text + seen())[0])
    assert not board.folder.exists()


def test_a_board_that_is_gone_stops_no_job(board):
    board.close()
    work(3)


# --- no number depends on it ----------------------------------------------------------------------


def test_a_change_of_it_makes_no_result_stale_and_one_beside_it_does(tmp_path):
    shutil.copytree(SOURCE_ROOT / "rglib", tmp_path / "rglib")
    modules = ("training.trainer", "restoration.evaluation", "data.images", "records.provenance")

    def hashes():
        return {name: code_hash(f"rglib.{name}", root=tmp_path) for name in modules}

    def add_to(name, text="added = 1"):
        with (tmp_path / "rglib" / name).open("a") as file:
            file.write(f"\n{text}\n")

    before = hashes()
    itself = code_hash("rglib.progress", root=tmp_path)
    add_to("progress.py")
    assert hashes() == before
    assert code_hash("rglib.progress", root=tmp_path) != itself
    add_to("files.py", "def replacing(path):\n    return path")
    assert all(hashes()[name] != before[name] for name in modules)


@pytest.mark.parametrize("name", MODULES_WITHOUT_NUMBERS)
def test_what_is_left_out_of_the_hashes_has_nothing_to_compute_with(name):
    path = SOURCE_ROOT.joinpath(*name.split(".")).with_suffix(".py")
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    assert imported - set(sys.stdlib_module_names) == {"tqdm"}


def test_bars_are_made_in_one_place():
    users = [
        path
        for path in Path(module.__file__).parent.rglob("*.py")
        if re.search(r"^\s*(from|import) tqdm", path.read_text(), re.MULTILINE)
    ]
    assert users == [Path(module.__file__)]
