"""Which method for what: PSNR, seconds and memory of each on photographs of the validation set.

``python -m benchmarks.methods`` restores the middle of two photographs with every network of a
folder, as `rglib restore` does, and writes ``results/methods.csv`` and ``.md``. Each method has a
process of its own, ``python -m benchmarks.methods --method NAME``, whose largest resident set is
its memory.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from tabulate import tabulate

from benchmarks.memory import resident_peak
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, observe_image
from rglib.core.tensors import centre, to_tensor
from rglib.data.datasets import CATALOGUE, resolve
from rglib.data.images import read_listed
from rglib.files import check_writable, replacing
from rglib.records.provenance import machine
from rglib.report.evaluations import problem_title
from rglib.restoration.prior import load
from rglib.restoration.weights_folder import Models

DATASET = "embedded_validation"
PHOTOGRAPHS = 2
KINDS = ("completion80", "deblur_s1.6", "sr2_bicubic_n0.01", "sr3_gaussian_n0.01")
COLUMNS = ("method", "problem_id", "image", "psnr_db", "seconds", "memory_mb")
ROOT = Path(__file__).resolve().parents[1]


def measured(method: str, *, models: Path | None, side: int) -> pd.DataFrame:
    """Restore each photograph of each problem in this process: a row for each, `COLUMNS`.

    Args:
        method: by which; its settings are those of the folder.
        models: the folder of networks, None for those that ship.
        side: pixels of the square in the middle of a photograph.
    """
    prior = load(method, models=models)
    with TemporaryDirectory() as folder:
        manifest = resolve(DATASET, mirrors=[], data_dir=Path(folder), offline=True)
        photographs = {
            file.name: centre(to_tensor(read_listed(file)), side)
            for file in manifest.images[:PHOTOGRAPHS]
        }
    rows = []
    for problem_id in KINDS:
        for name, pixels in photographs.items():
            seen = observe_image(PROBLEMS[problem_id], pixels)
            began = time.process_time()  # what else the machine does counts for nothing
            x = prior.restore(seen.y, seen.problem, like=problem_id)
            seconds = time.process_time() - began
            rows.append((method, problem_id, name, psnr(x, seen.x_hat).item(), seconds))
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return table.assign(memory_mb=resident_peak())


def in_a_process(method: str, *, models: Path | None, side: int, threads: int) -> pd.DataFrame:
    """`measured` in a process that has done nothing else."""
    command = [sys.executable, "-m", "benchmarks.methods", "--method", method]
    command += ["--side", str(side), "--threads", str(threads)]
    command += ["--models", str(models.resolve())] if models else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return pd.read_csv(io.StringIO(done.stdout))


def markdown(table: pd.DataFrame, *, labels: Mapping[str, str], said: str) -> str:
    """A row for each method: mean PSNR by problem, seconds for a photograph, and memory.

    Args:
        table: what `measured` returns of every method.
        labels: readable names of the methods, by id.
        said: a paragraph above the table.
    """
    found = table.groupby(["method", "problem_id"], sort=False)["psnr_db"].mean().unstack()
    of_problem = found[list(dict.fromkeys(table["problem_id"]))]
    of_method = table.groupby("method")
    seconds, memory = of_method["seconds"].mean(), of_method["memory_mb"].max()
    best = of_problem.round(2).max()
    rows = [
        [
            labels[method],
            *(_marked(of_problem[id][method], best[id]) for id in map(str, of_problem)),
            f"{seconds[method]:.1f}",
            f"{memory[method]:.0f}",
        ]
        for method in dict.fromkeys(table["method"])
    ]
    header = ["PSNR (dB)", *(problem_title(str(id)) for id in of_problem), "seconds", "memory (MB)"]
    alignment = ["left", *["right"] * (len(header) - 1)]
    body = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    return f"# Which method for what\n\n{said}\n\n{body}\n"


def _marked(value: float, best: float) -> str:
    shown = f"{value:.2f}"
    return f"**{shown}**" if float(shown) == best else shown


def main(arguments: list[str] | None = None) -> None:
    """Measure one method and print its rows, or all and write the table."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.method:
        print(
            measured(options.method, models=options.models, side=options.side).to_csv(index=False)
        )
        return
    check_writable([options.out])
    models = Models.open(options.models)
    methods = models.available()
    table = pd.concat(
        in_a_process(method, models=options.models, side=options.side, threads=options.threads)
        for method in methods
    )
    said = (
        f"Means over the middle, {options.side}x{options.side}, of {PHOTOGRAPHS} of the "
        f"{CATALOGUE[DATASET].title}; the best of each problem is bold. Seconds of CPU time are "
        f"for one of them, in float32 with {options.threads} thread(s); memory is the most that "
        "the process had. "
        f"{machine()}. `python -m benchmarks.methods --side {options.side} --threads "
        f"{options.threads}` writes this."
    )
    labels = {method: models.method(method)["label"] for method in methods}
    text = markdown(table, labels=labels, said=said)
    for name, content in (("methods.csv", table.to_csv(index=False)), ("methods.md", text)):
        with replacing(options.out / name) as partial:
            partial.write_text(content, encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    made.add_argument("--models", type=Path, metavar="FOLDER", help="default: those that ship")
    made.add_argument("--method", metavar="NAME", help="print the rows of this one alone, as CSV")
    made.add_argument("--side", type=int, default=256, help="pixels (default: %(default)s)")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=Path("results"))
    return made


if __name__ == "__main__":
    main()
