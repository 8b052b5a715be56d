"""Note which functions of rglib a job executes: Python imports this first where it is on the path.

What runs while a module is imported is left out: it is there whether the job uses it or not.
"""

import atexit
import json
import os
import sys
import threading
from pathlib import Path

FOLDER = os.environ.get("RGLIB_TRACE")
ROOT = f"{Path.cwd()}{os.sep}"
PACKAGE = f"{ROOT}rglib{os.sep}"

called = set()


def _is_of_a_module(code):
    return code.co_name == "<module>" and code.co_filename.startswith(PACKAGE)


def _note(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith(PACKAGE) or not code.co_filename.endswith(".py"):
        return
    place = (code.co_filename.removeprefix(ROOT), code.co_firstlineno)
    if place in called:
        return
    outer = frame
    while outer is not None and not _is_of_a_module(outer.f_code):
        outer = outer.f_back
    if outer is None:
        called.add(place)


def _write():
    job = getattr(sys.modules["__main__"], "snakemake", None)
    if job is not None:
        script = ".".join(Path(sys.argv[0]).name.split(".")[-2:])
        content = {"script": script, "code": dict(job.params.code), "called": sorted(called)}
        Path(FOLDER, f"{os.getpid()}.json").write_text(json.dumps(content))


if FOLDER:
    sys.settrace(_note)
    threading.settrace(_note)
    atexit.register(_write)
