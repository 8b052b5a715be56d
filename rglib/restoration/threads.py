"""How many CPU threads restore fastest: measured, as it depends on what else the machine does.

On two idle cores two threads are 1.7 times as fast as one; beside other work one is faster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch

from rglib.core.networks import inference_only
from rglib.records.provenance import usable_processors
from rglib.restoration.prior import Prior

SIDE = 256  # pixels of the square that is timed
ROUNDS = 2  # of which the faster counts; other work comes and goes


def use_fastest(prior: Prior) -> str | None:
    """Set PyTorch's threads to the number with which the prior's network is fastest now.

    It tries 1, 2, 4 and so on up to the usable processors, in a second or so. On a GPU, with one
    processor, or where ``OMP_NUM_THREADS`` says how many, nothing is measured or changed.

    Returns:
        What there is to say about it, or None.
    """
    numbers = candidates(usable_processors())
    if prior.device.type != "cpu" or len(numbers) == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    best = fastest(numbers, seconds_of(prior))
    torch.set_num_threads(best)
    return f"CPU threads: {best}, the fastest of {', '.join(map(str, numbers))}"


def candidates(processors: int) -> list[int]:
    """1, 2, 4 and so on below a number of processors, and that number."""
    powers = [2**i for i in range(processors.bit_length()) if 2**i < processors]
    return [*powers, processors]


def fastest(numbers: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The number that takes the fewest seconds, each asked in turn `ROUNDS` times."""
    rounds = [{number: seconds(number) for number in numbers} for _ in range(ROUNDS)]
    return min(numbers, key=lambda number: min(one[number] for one in rounds))


def seconds_of(prior: Prior) -> Callable[[int], float]:
    """A function that times a call of the prior's network with so many threads."""
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    arguments = (image,) if prior.algorithm == "gradient_descent" else (image, 0.1)

    def seconds(number: int) -> float:
        torch.set_num_threads(number)
        network = inference_only(prior.network)
        with torch.no_grad():
            network(*arguments)  # what a first call does once is not to count
            began = time.perf_counter()
            network(*arguments)
        return time.perf_counter() - began

    return seconds
