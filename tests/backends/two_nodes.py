"""A Ray cluster of several nodes on one machine, each with processes, ports and places of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from sftrl_ext.experiments.process import end_tree
from tests.backends.namespaces import Network

_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


class LocalCluster:
    """Ray nodes that can be added and killed. Nothing of them is written where another Ray would find it.

    Args:
        log: A folder for the output of each node.
        cpus: CPUs each node says it has.
        gpus: Places for training processes on each node.
        patience: Seconds a node may take to start.
        dashboard: Whether jobs can be submitted, at ``jobs``.
        network: Puts every node but the first into a network namespace of its own.
    """

    def __init__(
        self,
        log: Path,
        cpus: int = 16,
        gpus: int = 1,
        patience: float = 600,
        dashboard: bool = False,
        network: Network | None = None,
    ) -> None:
        self.log, self.cpus, self.gpus, self.patience = log, cpus, gpus, patience
        self.jobs = f"http://127.0.0.1:{_free_port()}" if dashboard else None
        self.temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets: a path must be short
        self.network = network
        self.address = f"{network.HERE if network else '127.0.0.1'}:{_free_port()}"
        self.nodes: list[psutil.Process] = []
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            # On busy cores an import of verl takes minutes; Ray would start the worker over and over.
            "RAY_worker_register_timeout_seconds": "900",
        }
        if network is not None:
            self.env["GLOO_SOCKET_IFNAME"] = network.interface
        # What a run needs in its workers must come with the run, not from the node.
        self.env.pop("VERL_PLATFORM", None)

    def add(self, env: dict[str, str] | None = None) -> psutil.Process:
        """Start a node, the first one as head, and wait until it stands."""
        words: list[object] = ["--num-cpus", self.cpus, "--num-gpus", self.gpus]
        words += ["--object-store-memory", 200_000_000]
        words += ["--min-worker-port", 0, "--max-worker-port", 0, "--disable-usage-stats", "--block"]
        number, place = len(self.nodes) + 1, []
        if self.nodes:
            words += ["--address", self.address, "--node-ip-address"]
            if self.network is not None:
                place = self.network.machine(number)
                words.append(f"10.77.0.{number}")
            else:  # another address of this machine, so that Ray takes it for another one
                words.append(f"127.0.0.{number}")
        else:
            words += ["--node-ip-address", self.network.HERE] if self.network is not None else []
            port = self.address.partition(":")[2]
            words += ["--head", "--port", port, "--temp-dir", self.temp]
            words += ["--ray-client-server-port", _free_port()]
            words += ["--include-dashboard", str(self.jobs is not None).lower()]
            if self.jobs is not None:
                words += ["--dashboard-port", self.jobs.rpartition(":")[2]]
        path = self.log / f"node-{len(self.nodes)}.log"
        with path.open("w") as output:
            node = psutil.Popen(
                [*place, *_RAY, "start", *map(str, words)],
                env={**self.env, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        end = time.monotonic() + self.patience
        while "will now block forever" not in path.read_text():
            assert node.poll() is None and time.monotonic() < end, path.read_text()[-3000:]
            time.sleep(0.5)
        return node

    def kill(self, node: psutil.Process) -> None:
        """End a node as a power cut does: every process of it, at once."""
        tree = [node, *node.children(recursive=True)]
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, timeout=60)

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
