"""A throw-away Slurm of one node with one GPU that nothing computes on, for tests of the profile.

    python tests/slurm/cluster.py up | down

It needs root and Debian's packages slurmctld, slurmd, slurm-client and munge; no systemd, cgroups,
accounting or network. All its state is in FOLDER, but for links in /etc/slurm: the jobs' `srun` is
started without SLURM_CONF and looks there. A machine with a Slurm of its own is left alone.
"""

import os
import platform
import re
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
LINKS = [SYSTEM / file for file in ("slurm.conf", "gres.conf")]
CONFIGLESS = Path("/run/slurm/conf")  # where a node keeps what its controller sends
DAEMONS = ("munged", "slurmctld", "slurmd")  # in the order of their start
PROGRAMS = (*DAEMONS, "sbatch", "scancel", "squeue", "srun", "scontrol", "sinfo")
SECONDS = 60  # for a start or a stop, where one is usual; more than KillWait

# The node claims (config_overrides) to be large, so that jobs fit whatever the test runs on.
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
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:pretended:1
PartitionName=test Nodes={host} Default=YES
"""
GPU = "NodeName={host} Name=gpu Type=pretended File=/dev/null\n"


def obstacle():
    """Why a cluster cannot be started here, or None."""
    if platform.system() != "Linux":
        return "Slurm needs Linux"
    if os.geteuid() != 0:
        return "starting a Slurm for a test needs root"
    if lacking := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)"
    if "SLURM_CONF" in os.environ or any(map(_is_foreign, (*LINKS, CONFIGLESS))):
        return "this machine belongs to a Slurm, which no test may touch"
    return None


def up():
    """Start the cluster, or find it running."""
    _refuse_elsewhere()
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
    _refuse_elsewhere()
    if process("slurmctld"):
        _run("scancel", "--user=root")
        _wait_until(lambda: not _run("squeue", "--noheader"), "jobs do not end")
    for daemon in reversed(DAEMONS):
        if number := process(daemon):
            os.kill(number, signal.SIGTERM)
            _wait_until(lambda daemon=daemon: not process(daemon), f"{daemon} does not end")
    for link in LINKS:
        link.unlink(missing_ok=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


def process(daemon):
    """The number of a daemon's process, or None; numbers are used again, so its name counts."""
    try:
        number = int((FOLDER / f"{daemon}.pid").read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return number if name == daemon else None


def jobs():
    """The jobs of the last ten minutes, each as what `scontrol` says of it."""
    said = _run("scontrol", "--oneliner", "--details", "show", "job")
    lines = (re.findall(r"(\w+)=(\S*)", line) for line in said.splitlines())
    return [dict(pairs) for pairs in lines if pairs]


def _refuse_elsewhere():
    if reason := obstacle():
        raise RuntimeError(reason)


def _is_foreign(path):
    return os.path.lexists(path) and not (path.is_symlink() and path.readlink().parent == FOLDER)


def _configure():
    """Write the configuration on free ports and link to it."""
    values = {"folder": FOLDER, "host": socket.gethostname().partition(".")[0]}
    with socket.socket() as first, socket.socket() as second:
        for key, free in (("controller_port", first), ("node_port", second)):
            free.bind(("127.0.0.1", 0))
            values[key] = free.getsockname()[1]
    SYSTEM.mkdir(exist_ok=True)
    for link, text in zip(LINKS, (CONFIGURATION, GPU), strict=True):
        (FOLDER / link.name).write_text(text.format(**values))
        link.symlink_to(FOLDER / link.name)


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
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=check).stdout


def _wait_until(condition, otherwise):
    limit = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise RuntimeError(f"{otherwise}: see {FOLDER}/*.log")
        time.sleep(0.1)


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
