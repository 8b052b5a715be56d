import re

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from rglib.restoration import memory
from rglib.restoration.memory import TooLargeError, check_memory, enough_for, free_memory

CPU = torch.device("cpu")
ERRORS = {
    "Python's": MemoryError(),
    "NumPy's": np._core._exceptions._ArrayMemoryError((9, 9), np.dtype(np.uint8)),
    "CUDA's": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "PyTorch's": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "C++'s": RuntimeError("std::bad_alloc"),
    "MKL's": RuntimeError("MKL FFT error: Intel MKL DFTI ERROR: Memory allocation error"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_lack_of_memory_has_the_files_name(tmp_path, case):
    path = tmp_path / "a.png"
    with pytest.raises(TooLargeError, match=r"too small for .*a\.png: buy some$"):
        with enough_for(path, advice="buy some"):
            raise ERRORS[case]


def test_pytorch_says_what_it_is_expected_to(tmp_path):
    with pytest.raises(TooLargeError), enough_for(tmp_path / "a.png", advice=""):
        torch.empty(2**55, dtype=torch.uint8)


def test_other_errors_pass(tmp_path):
    for error in (RuntimeError("sizes differ"), ValueError("memory")):
        with pytest.raises(type(error)) as caught, enough_for(tmp_path, advice=""):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("tile_above", [None, 100])
def test_the_size_named_fits_and_a_larger_one_does_not(tmp_path, tiny, monkeypatch, tile_above):
    monkeypatch.setattr(memory, "free_memory", lambda _: 500_000)

    def check(height, width):
        size = torch.Size((height, width))
        check_memory(
            tmp_path / "a.png", size, tiny("G"), CPU, tile_above=tile_above, advice="buy some"
        )

    with pytest.raises(
        TooLargeError, match=r"a\.png: of the 90x60 pixels .*free; buy some"
    ) as told:
        check(60, 90)
    width, height = map(int, re.search(r"about (\d+)x(\d+) would fit", str(told.value)).groups())
    assert width / height == pytest.approx(1.5, abs=0.05)
    check(height, width)
    with pytest.raises(TooLargeError):
        check(height + 2, width + 3)


def test_parts_need_less(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**20)
    for tile_above, enough in ((None, False), (64, True)):
        try:
            check_memory(
                tmp_path, torch.Size((55, 55)), tiny("G"), CPU, tile_above=tile_above, advice=""
            )
        except TooLargeError:
            assert not enough
        else:
            assert enough


def test_a_network_of_your_own_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _: 0)
    own = nn.Conv2d(3, 3, 3)
    check_memory(tmp_path, torch.Size((9, 9)), own, CPU, tile_above=None, advice="")


def test_what_is_free_is_what_the_system_and_the_limit_say(monkeypatch):
    free = free_memory(CPU)
    assert 0 < free <= psutil.virtual_memory().total + psutil.swap_memory().total
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (used + 2**20, -1))
    assert free_memory(CPU) <= 2**22
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (used // 2, -1))
    assert free_memory(CPU) == 0
