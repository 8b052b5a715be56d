"""Times of works that are compared, taken in turns, and ratios of them with their spread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Work = Callable[[], object]
Value = Callable[[Mapping[str, float]], float]  # of the seconds of all works in a round
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Time:
    """Seconds of one call: on the clock, and of the CPU by all threads of this process."""

    clock: float
    cpu: float


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds."""

    median: float
    q25: float
    q75: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of one value a round."""
        q25, median, q75 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return Spread(median, q25, q75)


def timed(work: Work, times: int, *, device: torch.device = CPU) -> Time:
    """Seconds of one of so many calls; a GPU's work is waited for."""
    _wait_for(device)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    _wait_for(device)
    return Time((time.perf_counter() - clock) / times, (time.process_time() - cpu) / times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Measured:
    """The times of several works, one for each round, by the works' names."""

    times: Mapping[str, Sequence[Time]]
    timers: tuple[str, ...]

    def spread(self, of: Value, timer: str) -> Spread:
        """Of a value of each round, such as `ratio`."""
        rounds = zip(*self.times.values(), strict=True)
        return Spread.of(
            [
                of({name: getattr(t, timer) for name, t in zip(self.times, one, strict=True)})
                for one in rounds
            ]
        )

    def fastest(self, amounts: Mapping[str, float]) -> str:
        """The work with the highest median of its amount (FLOP, say) over its seconds."""
        timer = self.timers[0]
        rates = {n: self.spread(rate(n, amount), timer).median for n, amount in amounts.items()}
        return max(rates, key=rates.__getitem__)


def seconds(name: str) -> Value:
    """Of a call of this work."""
    return lambda s: s[name]


def rate(name: str, amount: float = 1.0) -> Value:
    """So much of something, which one call of this work does, in a second."""
    return lambda s: amount / s[name]


def ratio(of: Value, to: Value) -> Value:
    """The quotient of two values of the same round."""
    return lambda s: of(s) / to(s)


def in_turns(
    works: Mapping[str, Work], *, rounds: int, least: float, device: torch.device
) -> Measured:
    """Time all works once in each round, each call repeated for at least ``least`` seconds.

    Whatever else the machine does then hits all alike. On a CPU with one thread CPU time comes
    first, which other work on the machine moves little; elsewhere there is the clock alone.
    """
    for work in works.values():
        work()  # what is made at the first call
    repeats = {}
    for name, work in works.items():
        once = timed(work, 1, device=device).clock
        repeats[name] = max(1, math.ceil(least / max(once, 1e-9)))
    times: dict[str, list[Time]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(timed(work, repeats[name], device=device))
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return Measured(times, ("cpu", "clock") if alone else ("clock",))
