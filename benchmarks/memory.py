"""Peak memory of an evaluation and of a training step, over their number of iterations.

Each is a process of its own, ``python -m benchmarks.memory WHAT ITERATIONS``, which prints its
largest resident set, as Linux says, or on a GPU the most that PyTorch had allocated there. It must
not grow with the iterations: neither iterates nor graphs are kept. Most of a resident set is the
libraries, so that the difference is given beside the ratio.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import training
from benchmarks.subjects import Case, Setup, frozen, middle, network, shipped_size
from benchmarks.table import Row
from rglib.core.algorithms import GradientDescent
from rglib.core.devices import device_named
from rglib.core.fixed_point import Adam
from rglib.core.problems import observe_test_image
from rglib.restoration.evaluation import Curves

SECTION = "memory"
WORKS = ("evaluation", "training step")
ROOT = Path(__file__).resolve().parents[1]


def measure(setup: Setup) -> list[Row]:
    """For few and for ten times as many iterations."""
    few = 2 if setup.quick else 10
    rows = []
    for what in WORKS:
        peaks = {n: _in_a_process(what, n, setup) for n in (few, 10 * few)}
        row = Row(SECTION, "peak memory", "", str(shipped_size()), "float32", unit="MB")
        rows += [
            replace(row, case=f"{what}, {n} iterations", value=peak) for n, peak in peaks.items()
        ]
        ratio = replace(row, unit="ratio", value=peaks[10 * few] / peaks[few])
        rows.append(replace(ratio, quantity=f"{10 * few} / {few} iterations", case=what))
        growth = replace(row, value=peaks[10 * few] - peaks[few], case=what)
        rows.append(replace(growth, quantity=f"{10 * few} iterations less {few}"))
    return rows


def _in_a_process(what: str, iterations: int, setup: Setup) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", what, str(iterations)]
    threads = str(torch.get_num_threads())
    options = ["--device", setup.device.type, "--threads", threads]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def peak(what: str, iterations: int, device: torch.device) -> float:
    """Run it, and say how much memory this process has had at most, MB."""
    if what == "evaluation":
        _evaluate(iterations, device)
    else:
        _train(iterations, device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resident_peak()


def resident_peak() -> float:
    """The most memory that this process has had, MB.

    Not by getrusage, which on Linux begins with what the parent had.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _evaluate(iterations: int, device: torch.device) -> None:
    seen = observe_test_image("deblur_s1.6", middle(256)).to(device)
    G = frozen("G", shipped_size(), "float32", device)
    method = GradientDescent(G, solver=Adam(lr=0.004), s=0.01, iterations=iterations)
    method.restore(seen, Curves(seen.x_hat, length=method.recorded).add)


def _train(iterations: int, device: torch.device) -> None:
    objective = training.of_length(training.OBJECTIVES["RERG"], iterations)
    networks = {role: network(role, shipped_size(), "float32", device) for role in "PG"}
    training.Step(objective, networks, Case(8, 64).images().to(device))()


def main() -> None:
    """Print the peak of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=WORKS)
    parser.add_argument("iterations", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(peak(options.what, options.iterations, device_named(options.device)))


if __name__ == "__main__":
    main()
