"""How many CPU threads restore fastest."""

from dataclasses import replace

import pytest
import torch

import rglib
from rglib.commands import restore
from rglib.commands.arguments import parser
from rglib.restoration import threads
from rglib.restoration.threads import candidates, fastest, seconds_of, use_fastest


@pytest.fixture
def prior():
    return rglib.load("rerg")


@pytest.fixture
def nobody_says(monkeypatch):
    """Neither the environment nor one processor, and the threads are as before afterwards."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "usable_processors", lambda: 3)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("processors", "numbers"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_powers_of_two_and_all_processors_are_tried(processors, numbers):
    assert candidates(processors) == numbers


def test_the_number_that_takes_the_fewest_seconds_in_any_round_is_taken():
    said = {1: iter([3.0, 3.0]), 2: iter([9.0, 2.0]), 4: iter([4.0, 4.0])}
    assert fastest([1, 2, 4], lambda number: next(said[number])) == 2


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_fastest_number_is_used_and_said(best, prior, nobody_says):
    nobody_says.setattr(threads, "seconds_of", lambda prior: lambda number: abs(number - best))
    assert use_fastest(prior) == f"CPU threads: {best}, the fastest of 1, 2, 3"
    assert torch.get_num_threads() == best


def test_nothing_is_measured_where_the_number_is_settled(prior, nobody_says):
    def measured(prior):
        raise AssertionError("was measured")

    nobody_says.setattr(threads, "seconds_of", measured)
    assert use_fastest(replace(prior, device=torch.device("cuda"))) is None
    with nobody_says.context() as one:
        one.setattr(threads, "usable_processors", lambda: 1)
        assert use_fastest(prior) is None
    nobody_says.setenv("OMP_NUM_THREADS", "2")
    assert use_fastest(prior) is None


@pytest.mark.parametrize("method", ["rerg", "mtdeq"])
def test_a_call_of_either_network_is_timed_with_so_many_threads(method, nobody_says):
    nobody_says.setattr(threads, "SIDE", 16)
    seconds = seconds_of(rglib.load(method))
    assert seconds(2) > 0
    assert torch.get_num_threads() == 2


def test_a_number_on_the_command_line_wins(prior, nobody_says, capsys):
    nobody_says.setattr(restore, "use_fastest", lambda prior: "3, measured")
    restore.set_threads(prior, 2)
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().err == ""
    restore.set_threads(prior, None)
    assert capsys.readouterr().err == "3, measured\n"


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(number, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["restore", "a.png", "-o", "b.png", f"--threads={number}"])
    said = f"--threads: '{number}' is not allowed; must be a whole number above 0"
    assert said in capsys.readouterr().err
