"""The product's Ray cluster on one machine, and what tests of faults need: kills, networks, a dashboard."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from sftrl_ext.experiments.rehearsal import local_cluster
from sftrl_ext.experiments.rehearsal.local_cluster import free_port
from tests.backends.namespaces import Network


class LocalCluster(local_cluster.LocalCluster):
    """Ray nodes that can be killed.

    Args:
        logs: A folder for the output of each node.
        cpus: CPUs that each node declares.
        gpus: Training processes that each node has room for.
        patience: Seconds a node may take to start.
        dashboard: Whether jobs can be submitted, at ``jobs``.
        network: Puts every node but the first into a network namespace of its own.
    """

    def __init__(
        self,
        logs: Path,
        cpus: int = 16,
        gpus: int = 1,
        patience: float = 600,
        dashboard: bool = False,
        network: Network | None = None,
    ) -> None:
        env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        if network is not None:
            env["GLOO_SOCKET_IFNAME"] = network.interface
        super().__init__(logs, env, cpus, gpus, patience)
        self.jobs = f"http://127.0.0.1:{free_port()}" if dashboard else None
        self.network = network
        if network is not None:
            self.address = f"{network.HERE}:{free_port()}"

    def head_args(self) -> list[object]:
        """The product's, with the dashboard and the address in the network."""
        args = super().head_args()
        if self.network is not None:
            args += ["--node-ip-address", self.network.HERE]
        if self.jobs is not None:
            args[args.index("--include-dashboard") + 1] = "true"
            args += ["--dashboard-port", self.jobs.rpartition(":")[2]]
        return args

    def worker_args(self, number: int) -> list[object]:
        """The product's, or an address of the node's own namespace."""
        if self.network is None:
            return super().worker_args(number)
        return ["--address", self.address, "--node-ip-address", f"10.77.0.{number}"]

    def prefix(self, number: int) -> list[str]:
        """Enters the node's namespace."""
        return self.network.machine(number) if self.network is not None and self.nodes else []

    def kill(self, node: psutil.Process) -> None:
        """End a node as a power cut does: every process of it, at once."""
        tree = [node, *node.children(recursive=True)]
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, timeout=60)
