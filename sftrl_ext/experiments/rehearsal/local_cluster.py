"""A Ray cluster of several nodes on one machine, each with processes and ports of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.subprocesses import end_tree, tail

_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


class LocalCluster:
    """Ray nodes of this machine. Nothing of them is written where another Ray would find it.

    Args:
        logs: A folder for the output of each node.
        env: Variables of every node.
        cpus: CPUs that each node declares.
        gpus: Training processes that each node has room for.
        patience: Seconds a node may take to start.
    """

    def __init__(
        self, logs: Path, env: Mapping[str, str], cpus: int = 16, gpus: int = 1, patience: float = 300
    ) -> None:
        self.logs, self.cpus, self.gpus, self.patience = logs, cpus, gpus, patience
        self.temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets: a path must be short
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[psutil.Process] = []
        self.env = {
            **env,
            "RAY_AUTH_MODE": "disabled",
            # On busy cores an import of verl takes minutes; Ray would start the worker over and over.
            "RAY_worker_register_timeout_seconds": "900",
        }
        # Variables of a run must come with the run, not from the node.
        self.env.pop("VERL_PLATFORM", None)
        self.env.pop("RAY_ADDRESS", None)

    def add(self, env: Mapping[str, str] | None = None) -> psutil.Process:
        """Start a node, the first one as head, and wait until it is up.

        Args:
            env: Variables of this node alone.

        Raises:
            SftrlError: if it does not start in time.
        """
        number = len(self.nodes) + 1
        args = ["--num-cpus", self.cpus, "--num-gpus", self.gpus]
        args += ["--object-store-memory", 200_000_000, "--min-worker-port", 0, "--max-worker-port", 0]
        args += ["--disable-usage-stats", "--block"]
        args += self.worker_args(number) if self.nodes else self.head_args()
        log = self.logs / f"node-{number}.log"
        with log.open("w") as output:
            node = psutil.Popen(
                [*self.prefix(number), *_RAY, "start", *map(str, args)],
                env={**self.env, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        end = time.monotonic() + self.patience
        while "will now block forever" not in log.read_text():
            if node.poll() is not None or time.monotonic() > end:
                raise SftrlError(f"Ray node {number} did not start in {self.patience:.0f} s:\n{tail(log)}")
            time.sleep(0.5)
        return node

    def head_args(self) -> list[object]:
        """Options of `ray start` for the first node."""
        args: list[object] = ["--head", "--port", self.address.partition(":")[2], "--temp-dir", self.temp]
        args += ["--ray-client-server-port", free_port(), "--include-dashboard", "false"]
        # Checked even without a dashboard, where another cluster of the machine has the default.
        return [*args, "--dashboard-port", free_port()]

    def worker_args(self, number: int) -> list[object]:
        """Options of `ray start` for another node: another address, so that Ray takes it for a machine."""
        return ["--address", self.address, "--node-ip-address", f"127.0.0.{number}"]

    def prefix(self, number: int) -> list[str]:
        """Command that starts the node's command; none here."""
        return []

    def close(self) -> None:
        """End every node and remove its files."""
        for node in reversed(self.nodes):
            if node.is_running():
                end_tree(psutil.Process(node.pid))
        shutil.rmtree(self.temp, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def free_port() -> int:
    """A TCP port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
