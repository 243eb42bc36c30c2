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
from sftrl_ext.experiments.process import end_tree, tail

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
        self.address = f"127.0.0.1:{_free_port()}"
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

    def add(self) -> None:
        """Start a node, the first one as head, and wait until it is up.

        Raises:
            SftrlError: if it does not start in time.
        """
        args: list[object] = ["--num-cpus", self.cpus, "--num-gpus", self.gpus]
        args += ["--object-store-memory", 200_000_000, "--min-worker-port", 0, "--max-worker-port", 0]
        args += ["--disable-usage-stats", "--block"]
        number = len(self.nodes) + 1
        if self.nodes:  # another address of this machine, so that Ray takes it for another one
            args += ["--address", self.address, "--node-ip-address", f"127.0.0.{number}"]
        else:
            args += ["--head", "--port", self.address.partition(":")[2], "--temp-dir", self.temp]
            args += ["--ray-client-server-port", _free_port(), "--include-dashboard", "false"]
        log = self.logs / f"node-{number}.log"
        with log.open("w") as output:
            node = psutil.Popen(
                [*_RAY, "start", *map(str, args)],
                env=self.env,
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
