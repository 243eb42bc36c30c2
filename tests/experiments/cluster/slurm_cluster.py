"""A Slurm cluster of two nodes on one machine: munged, slurmctld and two slurmd with files of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "srun")
NODES = ("n1", "n2")

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=10
MinJobAge=7200
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """The daemons of a cluster; each node declares sixteen CPUs, whatever the machine has.

    Args:
        log: A folder for the output of each daemon.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
        self.daemons: list[psutil.Popen] = []
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> SlurmCluster:
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        host = socket.gethostname()
        conf = _CONF.format(host=host, folder=self.folder, port=_free_port())
        for node in NODES:
            conf += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} "
            conf += "CPUs=16 RealMemory=8000\n"
        (self.folder / "slurm.conf").write_text(conf)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        munge = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "seed")}
        munge["socket"] = self.folder / "munge.sock"
        self._start(
            "munged",
            "--foreground",
            "--force",
            f"--socket={munge['socket']}",
            f"--key-file={key}",
            f"--pid-file={munge['pid']}",
            f"--seed-file={munge['seed']}",
            f"--log-file={self.log / 'munge.txt'}",
        )
        wait_until(munge["socket"].exists, 30, "munged made no socket")
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T").split() == ["idle"], 60, "no idle nodes")
        return self

    def __exit__(self, *unused: object) -> None:
        subprocess.run(["scancel", "--user=root"], env=self.env, check=False)
        time.sleep(2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def job_state(self, job: int) -> str:
        """Slurm's word for the state of a job: ``PENDING``, ``RUNNING``, ``COMPLETED``, .."""
        text = self.ask("scontrol", "show", "job", str(job), "--oneliner")
        return text.partition("JobState=")[2].partition(" ")[0]

    def _start(self, program: str, *options: str) -> None:
        with (self.log / f"{program}-{len(self.daemons)}.txt").open("w") as output:
            self.daemons.append(
                psutil.Popen([program, *options], env=self.env, stdout=output, stderr=subprocess.STDOUT)
            )


def wait_until(
    ready: Callable[[], bool], seconds: float, otherwise: str, still: Callable[[], bool] = lambda: True
) -> None:
    """Poll until ``ready``; fail with ``otherwise`` when time is up, or when ``still`` no longer holds."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end and still(), otherwise
        time.sleep(0.5)


def processes_of(folder: Path) -> Sequence[psutil.Process]:
    """Processes whose command line names a folder."""
    named = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in argument for argument in process.cmdline()):
                named.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return named


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
