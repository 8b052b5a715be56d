"""One stage trained by several processes, which torchrun starts; one process needs none of this.

`become_torchrun` is for the workflow. By hand, in the folder of the project:
``torchrun --nproc-per-node 2 -m rglib.training.launch work/<run>/training/<stage>/job.json``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import distributed

from rglib.core.devices import device_named
from rglib.files import replacing
from rglib.training.processes import Group
from rglib.training.stage import StageFiles, StageSettings, train_stage


@dataclass(frozen=True)
class Job:
    """What `train_stage` is given, in a file for all processes.

    Attributes:
        settings: of the stage.
        files: that it reads.
        weights: files to write, by role.
        card: file to write.
        threads: CPU threads of each process.
    """

    settings: StageSettings
    files: StageFiles
    weights: Mapping[str, Path]
    card: Path
    threads: int

    def write(self) -> Path:
        """Write it as JSON into the folder of the training, and return where it is."""
        path = self.files.folder / "job.json"
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n")
        return path

    @staticmethod
    def read(path: Path) -> Job:
        """What `write` wrote."""
        content = json.loads(path.read_text())
        files = content["files"]
        return Job(
            settings=StageSettings(**content["settings"]),
            files=StageFiles(
                train=Path(files["train"]),
                validation=Path(files["validation"]),
                init=_paths(files["init"]),
                folder=Path(files["folder"]),
            ),
            weights=_paths(content["weights"]),
            card=Path(content["card"]),
            threads=content["threads"],
        )


def torchrun(job: Path, *, processes: int) -> list[str]:
    """The command that trains a job with this many processes on this machine."""
    # its own address by number: not every machine can look up its own name
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    return [*command, "-m", "rglib.training.launch", str(job)]


def become_torchrun(job: Job, *, processes: int, log: Path) -> NoReturn:
    """Replace this process by torchrun, so that signals reach it; what it prints goes to a log."""
    command = torchrun(job.write(), processes=processes)
    with log.open("a") as file:
        sys.stdout.flush()
        os.dup2(file.fileno(), 1)
    os.execve(command[0], command, os.environ | {"OMP_NUM_THREADS": str(job.threads)})


def main(arguments: Sequence[str]) -> None:
    """Train a job, whose file is the only argument, as one of the processes of torchrun.

    Raises:
        ValueError: as `Group.join` and `train_stage`.
        TrainingError, Interrupted: as `Trainer.run`.
    """
    (path,) = arguments
    job = Job.read(Path(path))
    _stop_with_parent()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    torch.set_num_threads(job.threads)
    processes = Group.join(device_named(job.settings.device))
    train_stage(job.settings, job.files, weights=job.weights, card=job.card, processes=processes)
    # not after an error: the others might never come to take leave, and torchrun ends them
    distributed.destroy_process_group()


def _stop_with_parent() -> None:
    """Stop as after SIGTERM once torchrun is gone: killed, it takes nobody along."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _paths(names: Mapping[str, str]) -> dict[str, Path]:
    return {role: Path(name) for role, name in names.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
