"""A throw-away Slurm of one node with one GPU that nothing computes on, for tests of the profile.

    python tests/slurm/cluster.py up | down

It needs root and Debian's packages slurmctld, slurmd, slurm-client and munge; no systemd, cgroups,
accounting or network. All its state is in FOLDER, but for links in /etc/slurm: the jobs' `srun` is
started without SLURM_CONF and looks there. A machine with a Slurm of its own is left alone.
"""

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "rglib-test-slurm"
SYSTEM = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
DAEMONS = ("munged", "slurmctld", "slurmd")  # in the order of their start
PROGRAMS = (*DAEMONS, "sbatch", "scancel", "squeue", "srun", "scontrol", "sinfo")
SECONDS = 30  # for a start or a stop; a second is usual

# The node claims (config_overrides) what a compute node has, so that jobs fit whatever runs the test.
# KillWait lies between the SIGTERM and the SIGKILL of a job that is cancelled; 30 is the default.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
MinJobAge=600
KillWait=30
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:1
PartitionName=test Nodes={host} Default=YES
"""
GPU = "NodeName={host} Name=gpu File=/dev/null\n"


def obstacle():
    """Why a cluster cannot be started here, or None."""
    if platform.system() != "Linux":
        return "Slurm needs Linux"
    if os.geteuid() != 0:
        return "starting a Slurm for a test needs root"
    if lacking := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)"
    for link in (SYSTEM / file for file in FILES):
        if os.path.lexists(link) and (not link.is_symlink() or link.readlink().parent != FOLDER):
            return f"{link} is not of a test: this machine has a Slurm of its own"
    return None


def up():
    """Start the cluster, or find it running."""
    if reason := obstacle():
        raise RuntimeError(reason)
    if all(map(process, DAEMONS)):
        return
    down()
    for folder in ("state", "spool"):
        (FOLDER / folder).mkdir(parents=True)
    _configure()
    _start_munge()
    for daemon in ("slurmctld", "slurmd"):
        _run(daemon)
    _wait_until(lambda: _node_state() == "idle", "the node is not idle")


def down():
    """Stop what runs and leave nothing behind."""
    if process("slurmctld"):
        subprocess.run(["scancel", "--user=root"], check=False)
        _wait_until(lambda: not _run("squeue", "--noheader"), "jobs do not end")
    for daemon in reversed(DAEMONS):
        if number := process(daemon):
            os.kill(number, signal.SIGTERM)
            _wait_until(lambda daemon=daemon: not process(daemon), f"{daemon} does not end")
    for file in FILES:
        (SYSTEM / file).unlink(missing_ok=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


def process(daemon):
    """The number of a daemon's process, or None; numbers are used again, so its name counts."""
    try:
        number = int((FOLDER / f"{daemon}.pid").read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return number if name == daemon else None


def _configure():
    """Write the configuration on free ports and link to it."""
    values = {"folder": FOLDER, "host": socket.gethostname().partition(".")[0]}
    with socket.socket() as first, socket.socket() as second:
        for key, free in (("controller_port", first), ("node_port", second)):
            free.bind(("127.0.0.1", 0))
            values[key] = free.getsockname()[1]
    SYSTEM.mkdir(exist_ok=True)
    for file, text in zip(FILES, (CONFIGURATION, GPU), strict=True):
        (FOLDER / file).write_text(text.format(**values))
        (SYSTEM / file).symlink_to(FOLDER / file)


def _start_munge():
    """Start munge with a key and a socket of its own, whatever else runs here."""
    key = FOLDER / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    files = {"key-file": key, "seed-file": FOLDER / "munge.seed", "log-file": FOLDER / "munge.log"}
    files |= {"socket": FOLDER / "munge.socket", "pid-file": FOLDER / "munged.pid"}
    _run("munged", "--force", *(f"--{option}={file}" for option, file in files.items()))


def _node_state():
    return _run("sinfo", "--noheader", "--format=%T", check=False).strip()


def _run(*command, check=True):
    """Run a program of Slurm and return what it said; an inherited SLURM_CONF would mislead it."""
    env = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=check)
    return said.stdout


def _wait_until(condition, otherwise):
    limit = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise RuntimeError(f"{otherwise}: see {FOLDER}/*.log")
        time.sleep(0.1)


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
