"""What an image suffers from, on the command line: a problem of the tables, a kernel, noise."""

from __future__ import annotations

import argparse
from dataclasses import is_dataclass, replace

from rglib.core.problems import PROBLEMS, Degradation, KernelBlur
from rglib.data.photographs import read_kernel


def degradation_of(chosen: argparse.Namespace) -> Degradation:
    """The degradation that ``--problem``, ``--kernel``, ``--noise`` and what goes with them say.

    Raises:
        ValueError: they contradict one another, are unknown or lack something.
        ImageError: the kernel cannot be read.
    """
    table = table_problem(chosen.problem)
    check_noise(chosen.noise)
    if chosen.kernel is None and (chosen.correlated or chosen.kernel_name is not None):
        option = "--correlated" if chosen.correlated else "--kernel-name"
        raise ValueError(f"{option} says how a kernel is meant: give it with --kernel FILE")
    if chosen.kernel is not None:
        if table is not None and table.task != "deblurring":
            raise ValueError(f"--kernel: {chosen.problem} is no deblurring; leave --problem out")
        noise = table.sigma if table is not None and chosen.noise is None else chosen.noise
        if noise is None:
            raise ValueError("--kernel needs a noise level: --noise 0.01, for example")
        kernel = read_kernel(chosen.kernel, name=chosen.kernel_name)
        return KernelBlur(kernel.flip(0, 1) if chosen.correlated else kernel, noise)
    if table is None:
        raise ValueError("say what the image suffers from: --problem ID or --kernel FILE")
    return table if chosen.noise is None else _with_noise(table, chosen.noise)


def check_noise(noise: float | None) -> None:
    """Check ``--noise``.

    Raises:
        ValueError: it is no standard deviation on [0, 1].
    """
    if noise is not None and not 0 <= noise <= 1:
        raise ValueError(
            f"--noise: {noise:g} is not allowed; it is the noise's standard deviation on [0, 1], "
            "0.01 for 2.55 of 255"
        )


def _with_noise(degradation: Degradation, sigma: float) -> Degradation:
    assert is_dataclass(degradation) and not isinstance(degradation, type)  # all of ours are
    return replace(degradation, sigma=sigma)


def table_problem(problem_id: str | None) -> Degradation | None:
    """The problem of the tables with this id, None for None.

    Raises:
        ValueError: it is unknown.
    """
    if problem_id is not None and problem_id not in PROBLEMS:
        raise ValueError(f"--problem: unknown {problem_id!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[problem_id] if problem_id else None
