"""Before a stage on several nodes: are they all there, and is each able to take part?

verl finds our trainer, agent loop and platform by an entry point that ``import verl`` loads. A node on which
this package is not installed, or is another version, would train something else or fail minutes later with an
error that does not name it. So one small Ray task runs on every node and looks.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import plugin_digests

SAME_EVERYWHERE = ("sftrl-ext", "verl", "torch", "transformers", "tensordict", "TransferQueue")
"""Packages whose versions must agree between the nodes."""


@dataclass(frozen=True)
class Node:
    """A node of a Ray cluster.

    Attributes:
        id: Ray's name of it.
        address: Its IP address.
        gpus: GPUs it offers (on a CPU: places for training processes).
        cpus: CPUs it offers, as Ray counts them.
    """

    id: str
    address: str
    gpus: float
    cpus: float

    def __str__(self) -> str:
        return f"{self.address} ({self.gpus:g} GPUs, {self.cpus:g} CPUs; {self.id[:8]})"


@dataclass(frozen=True)
class Needs:
    """Requirements of a stage on the cluster.

    Attributes:
        nodes: How many nodes train.
        gpus: GPUs on each of them.
        cpus: CPUs on each; verl asks Ray for several beside each GPU and waits for ever if there are fewer.
    """

    nodes: int
    gpus: int
    cpus: int

    def met_by(self, node: Node) -> bool:
        """True if a node offers enough."""
        return node.gpus >= self.gpus and node.cpus >= self.cpus


def alive_nodes() -> list[Node]:
    """The nodes that are alive now, head first if Ray says which it is."""
    import ray

    nodes = []
    for entry in ray.nodes():
        if entry["Alive"]:
            offers = entry["Resources"]
            node = Node(
                entry["NodeID"], entry["NodeManagerAddress"], offers.get("GPU", 0), offers.get("CPU", 0)
            )
            nodes.append(("node:__internal_head__" not in offers, node))
    return [node for _, node in sorted(nodes, key=lambda pair: (pair[0], pair[1].address, pair[1].id))]


def wait_for_nodes(
    needs: Needs, patience: float, look: Callable[[], list[Node]] = alive_nodes, pause: float = 2.0
) -> list[Node]:
    """Wait until enough nodes have joined.

    Args:
        needs: What must be there.
        patience: Seconds to wait at most.
        look: Gives the nodes that are alive.
        pause: Seconds between two looks.

    Returns:
        Every node that is alive.

    Raises:
        SftrlError: when the time is up, with the nodes there are.
    """
    end = time.monotonic() + patience
    while True:
        nodes = look()
        if sum(map(needs.met_by, nodes)) >= needs.nodes:
            return nodes
        if time.monotonic() >= end:
            available = ", ".join(map(str, nodes)) or "none"
            raise SftrlError(
                f"the Ray cluster has too little after {patience:.0f} s: expected {needs.nodes} nodes with "
                f"{needs.gpus} GPUs and {needs.cpus} CPUs each, found {available}. CPUs are a count that "
                "`ray start --num-cpus` sets, not cores."
            )
        time.sleep(pause)


def check_nodes(
    nodes: Sequence[Node], shared: Path, patience: float = 600.0, flash_attn: bool = False
) -> None:
    """Run the check on every node.

    Args:
        nodes: The nodes; this process must be connected to their cluster.
        shared: A folder that every node must see.
        patience: Seconds for all answers (a first import of verl takes long on a slow disk).
        flash_attn: The run trains with flash-attn, so every node needs it.

    Raises:
        SftrlError: naming each node at fault and what is wrong with it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = shared / f".seen-by-all-nodes-{uuid4().hex}"
    mark.touch()
    try:
        # It takes no CPU, so it starts on a node whose CPUs are all reserved.
        probe = _probe(_versions(), str(mark), flash_attn, plugin_digests())
        task: Any = ray.remote(num_cpus=0, max_retries=0)(probe)
        pending = {
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(): node
            for node in nodes
        }
        answered, silent = ray.wait(list(pending), num_returns=len(pending), timeout=patience)
        faults = {pending[answer]: _faults(answer) for answer in answered}
        faults.update({pending[answer]: [f"no answer in {patience:.0f} s"] for answer in silent})
    finally:
        mark.unlink(missing_ok=True)
    at_fault = [f"  {node}: {'; '.join(wrong)}" for node, wrong in faults.items() if wrong]
    if at_fault:
        raise SftrlError(
            f"{len(at_fault)} of {len(nodes)} nodes cannot take part:\n" + "\n".join(at_fault) + "\n"
            "Every node needs the same environment (see `sftrl doctor`) and the run folder at the same path."
        )


def ask_all(nodes: Sequence[Node]) -> Callable[[], bool]:
    """Give every node something trivial to do; the function returned says whether all have done it by now."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(num_cpus=0, max_retries=0)(lambda: None)
    answers = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n.id, soft=False)).remote()
        for n in nodes
    ]

    def all_answered() -> bool:
        _, waiting = ray.wait(answers, num_returns=len(answers), timeout=0)
        return not waiting and not any(_faults(answer) for answer in answers)

    return all_answered


def _faults(answer: Any) -> list[str]:
    import ray

    try:
        faults: list[str] | None = ray.get(answer)
    except Exception as error:  # noqa: BLE001 - whatever broke there is the answer
        return [str(error).strip().splitlines()[-1]]
    return faults or []


def _versions() -> dict[str, str]:
    versions = {}
    for name in SAME_EVERYWHERE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _probe(
    expected: dict[str, str], mark: str, flash_attn: bool = False, plugins: dict[str, str] | None = None
) -> Callable[[], list[str]]:
    """The function that runs on a node.

    It is a closure, so it travels by value: a node without this package can run it and say so.
    """

    def probe() -> list[str]:
        import importlib
        import importlib.metadata
        import os
        import sys
        import time

        wrong = []
        for name, version in expected.items():
            try:
                installed = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                wrong.append(f"{name} is not installed in {sys.executable} (expected {version})")
                continue
            if installed != version:
                wrong.append(f"{name} {installed} is installed, expected {version}")
        if not wrong:
            try:
                importlib.import_module("verl")
                register = importlib.import_module("sftrl_ext.training.register")
                missing = register.missing_registrations()
                wrong += [f"verl does not know the {name} of sftrl-ext" for name in missing]
                requested = os.environ.get("VERL_PLATFORM")
                device = importlib.import_module("verl.plugin.platform").get_platform().device_name
                if requested == "cpu" and device != "cpu":
                    wrong.append(f"verl took the platform {device!r}, expected 'cpu'")
                wrong += importlib.import_module("sftrl_ext.plugins").plugin_faults(plugins or {})
            except Exception as error:  # noqa: BLE001 - the reason travels to the driver as text
                wrong.append(f"verl cannot be used: {type(error).__name__}: {error}")
        if flash_attn:
            try:
                _ = importlib.import_module("flash_attn").flash_attn_varlen_func
            except Exception as error:  # noqa: BLE001 - a build against another torch fails in many ways
                wrong.append(
                    "the run trains with flash_attention_2, but flash-attn cannot be imported "
                    f"({type(error).__name__}: {error}); install it there, or set scale.attention=sdpa"
                )
        for _ in range(20):  # a network file system shows a new file some seconds late
            if os.path.exists(mark):
                break
            time.sleep(0.5)
        else:
            wrong.append(f"the run folder is not shared: {mark} is not there")
        return wrong

    return probe
