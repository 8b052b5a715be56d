"""Do a piece of work again and again in processes that are killed at random moments.

The work is a function of a folder in one of the test files. It runs in forks of a process that has
imported it already, so that a kill costs no start of Python.
"""

import importlib
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path


def nothing(folder):
    """The progress of work that begins anew."""


def at_random_moments(work, folder, *, kills, share, check, progress=nothing):
    """Do `work` in `folder`/whole, and with that many kills and to its end in `folder`/killed.

    The moments are spread over a `share` of the time that it takes undisturbed: every other time
    from its start on, else from when the `progress` of the folder is another than before it.
    After each kill `check` is called with the folder.
    """
    names = [work.__module__, *(function.__name__ for function in (work, check, progress))]
    command = [sys.executable, __file__, *names, str(kills), str(share), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _main(module, names, kills, share, folder):
    functions = {"nothing": nothing, **vars(importlib.import_module(module))}
    work, check, progress = (functions[name] for name in names)
    began = time.monotonic()
    assert _run(work, folder / "whole") == 0
    alone = time.monotonic() - began
    chance, killed = random.Random(0), 0
    for i in range(10 * kills):
        watched = progress if i % 2 else nothing
        seconds = chance.uniform(0, share * alone)
        killed += _run(work, folder / "killed", progress=watched, then_seconds=seconds) < 0
        check(folder / "killed")
        if killed == kills:
            break
    assert killed == kills, f"only {killed} kills came before the end of the work"
    assert _run(work, folder / "killed") == 0
    check(folder / "killed")


def _run(work, folder, *, progress=nothing, then_seconds=None):
    """Return the exit code of a process that does the work, minus the signal that ended it."""
    before = progress(folder)
    child = os.fork()
    if child == 0:
        try:
            work(folder)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if then_seconds is not None:
        while progress is not nothing and progress(folder) == before and _goes_on(child):
            time.sleep(0.001)
        time.sleep(then_seconds)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the work failed with {code}"
    return code


def _goes_on(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:5], int(sys.argv[5]), float(sys.argv[6]), Path(sys.argv[7]))
