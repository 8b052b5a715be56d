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


def at_random_moments(work, folder, *, kills, share, check):
    """Do `work` in `folder`/whole, and with that many kills and to its end in `folder`/killed.

    The moments are spread over a `share` of the time that it takes undisturbed. After each kill
    `check` is called with the folder.
    """
    names = [work.__module__, work.__name__, check.__name__]
    command = [sys.executable, __file__, *names, str(kills), str(share), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _main(module, work, check, kills, share, folder):
    functions = importlib.import_module(module)
    work, check = getattr(functions, work), getattr(functions, check)
    began = time.monotonic()
    assert _run(work, folder / "whole") == 0
    alone = time.monotonic() - began
    chance, killed = random.Random(0), 0
    for _ in range(10 * kills):
        killed += _run(work, folder / "killed", for_seconds=chance.uniform(0, share * alone)) < 0
        check(folder / "killed")
        if killed == kills:
            break
    assert killed == kills, f"only {killed} kills came before the end of the work"
    assert _run(work, folder / "killed") == 0
    check(folder / "killed")


def _run(work, folder, *, for_seconds=None):
    """Return the exit code of a process that does the work, minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work(folder)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if for_seconds is not None:
        time.sleep(for_seconds)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the work failed with {code}"
    return code


if __name__ == "__main__":
    _main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]), Path(sys.argv[6]))
