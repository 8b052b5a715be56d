"""How much faster two processes train than one: ``python -m benchmarks.scaling``.

Both are timed in turns in the same run, on the embedded networks, so that what else the machine
does hits both alike. Beside the time on the clock stands the CPU time of the busiest process, which
depends little on the rest of the machine; it leaves out the waiting for one another.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import distributed
from torch.multiprocessing.spawn import spawn

from benchmarks.subjects import PhotographCrops
from benchmarks.timing import CPU, Time, timed
from rglib.core.networks import build, load_into
from rglib.records.provenance import machine
from rglib.training import factory
from rglib.training.processes import ALONE, Group, Processes
from rglib.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
STARTS = {"P": "mtdeq_P", "G": "pnpreg_G"}  # under weights/: fixed points end as in a training


def trainer(name: str, folder: Path, processes: Processes) -> Trainer:
    """A trainer of a stage of config.yaml, in float32, from the weights the project ships."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    entry = config["stages"][name]
    recipe = replace(factory.recipe(entry, config, seed=0), log_every=sys.maxsize)
    networks = {role: build(role, **config["network"]) for role in recipe.objective.learns}
    for role, network in networks.items():
        load_into(network, ROOT / "weights" / f"{STARTS[role]}.safetensors")
    crops = PhotographCrops(batch=entry["budget"]["batch"], crop=entry["budget"]["crop"])
    return Trainer(
        recipe, networks, crops, folder=folder, fingerprint="", device=CPU, processes=processes
    )


def update(run: Trainer) -> None:
    """One update as in the trainer's loop."""
    run.update(run.batch())


def rounds(name: str, folder: Path, group: Group, options: argparse.Namespace) -> list[list[Time]]:
    """Rounds of the same updates by the first process alone, by all, and of the collective alone.

    Every process returns the times of the slowest.
    """
    alone, shared = trainer(name, folder, ALONE), trainer(name, folder, group)
    gradients = [torch.ones_like(p) for p in shared.parameters]
    measured = []
    for i in range(options.rounds + 1):  # the first one only warms up
        alone.step = shared.step = 1 + i * options.updates
        distributed.barrier()
        times = [timed(lambda: update(alone), options.updates) if group.first else Time(0, 0)]
        distributed.barrier()
        times.append(timed(lambda: update(shared), options.updates))
        distributed.barrier()
        times.append(timed(lambda: group.average(gradients), options.updates))
        measured.append(_slowest(times, group))
    return measured[1:]


def _slowest(times: Sequence[Time], group: Group) -> list[Time]:
    gathered: list[Sequence[Time]] = [()] * group.share.count
    distributed.all_gather_object(gathered, times)
    return [
        Time(max(t.clock for t in same), max(t.cpu for t in same))
        for same in zip(*gathered, strict=True)
    ]


def report(name: str, measured: Sequence[Sequence[Time]]) -> str:
    """A row of the table: medians over the rounds, and ratios with their range."""
    one, all_, collective = zip(*measured, strict=True)
    clock = [a.clock / b.clock for a, b in zip(one, all_, strict=True)]
    cpu = [a.cpu / b.cpu for a, b in zip(one, all_, strict=True)]
    cells = [
        name,
        *(f"{statistics.median(t.clock for t in times):.3f}" for times in (one, all_)),
        _with_range(clock),
        *(f"{statistics.median(t.cpu for t in times):.3f}" for times in (one, all_)),
        _with_range(cpu),
        f"{1000 * statistics.median(t.clock for t in collective):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _with_range(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _joined(rank: int, port: int, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": options.processes}
    os.environ |= {key: str(value) for key, value in (place | {"RANK": rank}).items()}
    os.environ["LOCAL_RANK"] = str(rank)
    group = Group.join(CPU)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.stages:
            row = report(name, rounds(name, Path(folder), group, options))
            if group.first:
                print(row, flush=True)
    distributed.destroy_process_group()


def main() -> None:
    """Print a table for the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=4, help="in each round")
    parser.add_argument("--stages", nargs="+", default=["denoiser", "pnpreg", "rerg"])
    options = parser.parse_args()
    n, load = options.processes, os.getloadavg()[0]
    print(f"{machine()}; load {load:.1f}; {options.rounds} rounds of {options.updates} updates")
    print(
        f"| stage | clock 1 (s) | clock {n} (s) | ratio | CPU 1 (s) | CPU {n} (s) | ratio "
        "| all-reduce (ms) |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_joined, (port, options), n)


if __name__ == "__main__":
    main()
