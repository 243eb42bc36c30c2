"""Run one training command on a Ray cluster of several nodes: wait, check, run, and watch.

``python -m sftrl_ext.experiments.cluster.on_cluster --nodes 2 --gpus 8 --cpus 80 --shared DIR -- <command>``
connects to the cluster at ``RAY_ADDRESS`` (or the one of this machine), waits for the nodes, checks each of
them, and runs the command as a driver of that cluster. Variables that belong to the run travel with it to all
workers. When a node is lost the command is ended within a bounded time, where verl might wait for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.check_nodes import (
    Needs,
    Node,
    alive_nodes,
    ask_all,
    check_nodes,
    wait_for_nodes,
)
from sftrl_ext.experiments.cluster.local_ray import ADDRESS_VARIABLE, requested_address
from sftrl_ext.experiments.subprocesses import end_tree, end_with_parent

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which Ray's own job submission hands a driver its runtime environment."""

OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
"""Lets ``ray.init`` name a variable that the job's runtime environment names too."""

_TRAVELS = ("VERL_", "SFTRL_", "WANDB_", "MLFLOW_", "TENSORBOARD_", "SWANLAB_", "TRACKIO_")
_TRAVELS_TOO = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HYDRA_FULL_ERROR", "PYTHONHASHSEED")
_STAYS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Ends of the names of secrets: a runtime environment is shown in Ray's dashboard."""


def run_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that belong to the run and not to a machine: every worker on every node gets them.

    Those of a machine (NCCL, CUDA, caches) and secrets are set where Ray is started.
    """
    return {
        name: value
        for name, value in environ.items()
        if (name.startswith(_TRAVELS) or name in _TRAVELS_TOO) and not name.endswith(_STAYS)
    }


def driver_env(environ: Mapping[str, str], address: str) -> dict[str, str]:
    """The environment of the command: where the cluster is, and what its workers get.

    What an outer ``ray job submit`` asked for stays (its working directory, its variables).
    """
    outer = json.loads(environ.get(JOB_CONFIG) or "{}")
    runtime = dict(outer.get("runtime_env") or {})
    runtime["env_vars"] = {**runtime.get("env_vars", {}), **run_variables(environ)}
    config = json.dumps({**outer, "runtime_env": runtime})
    # verl's ray.init names some of the same variables, with the same values.
    return {**environ, "RAY_ADDRESS": address, JOB_CONFIG: config, OVERRIDE: "1"}


def run_and_watch(
    command: Sequence[str],
    env: Mapping[str, str],
    nodes: Sequence[Node],
    *,
    look: Callable[[], list[Node]] = alive_nodes,
    ask: Callable[[Sequence[Node]], Callable[[], bool]] = ask_all,
    pause: float = 2.0,
    grace: float = 30.0,
    notice: float = 60.0,
) -> int:
    """Run a command to its end, or until a node is lost.

    Args:
        command: The argument list.
        env: Its environment.
        nodes: The nodes that were there at the start.
        look: Gives the nodes that are alive.
        pause: Seconds between two looks.
        ask: Asks all nodes for a sign of life; what it returns says whether all have answered.
        grace: Seconds the command gets to end by itself after a node was lost.
        notice: Seconds Ray gets to notice the loss of a node, when the command failed before it did.

    Returns:
        The command's exit status.

    Raises:
        SftrlError: if a node was lost, naming it.
    """
    child = subprocess.Popen(
        list(command), env=dict(env), preexec_fn=end_with_parent if sys.platform == "linux" else None
    )
    process = psutil.Process(child.pid)

    def lost_by_now() -> list[Node]:
        alive = {node.id for node in look()}
        return [node for node in nodes if node.id not in alive]

    lost: list[Node] = []
    end = float("inf")
    try:
        while child.poll() is None and time.monotonic() < end:
            if not lost:
                lost = lost_by_now()
                end = time.monotonic() + grace if lost else end
            time.sleep(pause)
        if child.returncode and not lost:
            # Was it the command, or a node whose death Ray has not noticed yet?
            all_answered, end = ask(nodes), time.monotonic() + notice
            while not lost and not all_answered() and time.monotonic() < end:
                time.sleep(pause)
                lost = lost_by_now()
    finally:
        if child.poll() is None:
            end_tree(process)
    if child.returncode != 0 and lost:
        raise SftrlError(
            f"lost {len(lost)} of {len(nodes)} nodes while training: {', '.join(map(str, lost))}. "
            f"Whole checkpoints are kept: with {len(nodes)} nodes again, `sftrl resume` goes on from them."
        )
    return int(child.returncode)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command after ``--``; its exit status, or 2 with one line of explanation."""
    parser = argparse.ArgumentParser(prog="on_cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True, help="on each node")
    parser.add_argument("--cpus", type=int, required=True, help="on each node, as Ray counts them")
    parser.add_argument("--shared", type=Path, required=True, help="a folder every node must see")
    parser.add_argument("--flash-attn", action="store_true", help="every node must have flash-attn")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds for nodes to join")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(argv)
    try:
        return _main(args)
    except SftrlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _main(args: argparse.Namespace) -> int:
    import ray

    # ``local`` would be a new Ray of this machine alone; the variable goes before the argument of ray.init.
    address = os.environ[ADDRESS_VARIABLE] = requested_address() or "auto"
    os.environ[OVERRIDE] = "1"  # inside a Ray job, whose variables are in our environment too
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": run_variables(os.environ)},
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise SftrlError(
            f"a run on several nodes needs a Ray cluster, and there is none at {address!r} "
            f"({str(error).splitlines()[0]}). Start one with `ray start`, or let a launcher do so: "
            "`sftrl run ... --launcher slurm`."
        ) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set a handler of its own
    try:
        needs = Needs(args.nodes, args.gpus, args.cpus)
        nodes = wait_for_nodes(needs, args.wait)
        check_nodes(nodes, args.shared, flash_attn=args.flash_attn)
        env = driver_env(os.environ, ray.get_runtime_context().gcs_address)
        return run_and_watch(args.command, env, nodes)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
