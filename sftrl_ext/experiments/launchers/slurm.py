"""``sbatch``: a job that joins its nodes to a Ray cluster of its own and runs the driver on the first.

A run on one node needs no cluster: verl starts its own Ray there. Ray writes below a temporary folder of the
job on every node; at the end what runs from there is ended and the folder is removed. ``ray stop`` would end
every Ray of the user on a node, those of other jobs too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.experiments.launchers.base import Job, Submission, launch_file
from sftrl_ext.experiments.local_ray import local_ray_env

_LEAVE = """\
# Ray's files of this job, named on the command line of its processes; its sockets allow no long path.
export RAY_TMPDIR="/tmp/sftrl-$SLURM_JOB_ID"
leave() {
  status=$?
  trap - EXIT
  CLEAN_NODES
  rm -rf "$RAY_TMPDIR"  # a cancelled job gets no further steps, and Slurm ends its processes
  exit "$status"
}
trap leave EXIT
"""

_JOIN = """\
# The cluster is this job's alone: nobody without the token can use it.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$(od -An -N24 -tx1 /dev/urandom | tr -d ' \\n')"
export RAY_AUTH_TOKEN

head_ip="$(on_head hostname --ip-address | awk '{print $1}')"
export RAY_ADDRESS="$head_ip:$((20000 + SLURM_JOB_ID % 20000))"

on_head RAY_START_HEAD &
for _ in $(seq 60); do
  if on_head ray status > /dev/null 2>&1; then break; fi
  sleep 5
done
on_others RAY_START_OTHERS &
"""


def launch(job: Job) -> Submission:
    """The ``sbatch`` script of a job, and the command that submits it."""
    path = launch_file(job, "sbatch")
    hint = f"Its log: {job.run_dir}/slurm-<job>.log"
    return Submission(("sbatch", str(path)), {path: script(job)}, [Path(job.run_dir)], hint)


def script(job: Job) -> str:
    """The batch script."""
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in sbatch_options(job)), ""]
    lines += ["set -euo pipefail"]
    # sbatch hands on the variables of the shell it is called in, where RAY_ADDRESS may name another cluster.
    lines += [f"export {name}={value}" for name, value in local_ray_env().items()]
    lines += job.shell_lines()
    # Since Slurm 22.05 srun no longer inherits the number of cores.
    lines += [
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi'
    ]
    if job.scale.nnodes == 1:
        options = ["--nodes=1", "--ntasks=1", *job.config.slurm.srun]
        leave = _leave([shlex.join(["srun", "--overlap", *options])])
        return "\n".join([*lines, leave, shlex.join(["srun", *options, *job.driver])]) + "\n"
    extra = shlex.join(job.config.slurm.srun)
    others = job.scale.nnodes - 1
    lines += [
        'mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        'head="${nodes[0]}"',
        f'on_head() {{ srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" {extra} "$@"; }}',
        f"on_others() {{ srun --overlap --nodes={others} --ntasks={others} "
        f'--exclude="$head" {extra} "$@"; }}',
        "",
    ]
    head = job.ray_start("--head", '--node-ip-address="$head_ip"', '--port="${RAY_ADDRESS##*:}"')
    join = _JOIN.replace("RAY_START_HEAD", head)
    join = join.replace("RAY_START_OTHERS", job.ray_start('--address="$RAY_ADDRESS"'))
    leave = _leave(["on_others", "on_head"])
    # The driver waits for the nodes and checks them itself, see experiments/on_cluster.py.
    return "\n".join([*lines, leave, join, f"on_head {shlex.join(job.driver)}"]) + "\n"


def _leave(steps: Sequence[str]) -> str:
    """Lines that run at the end of the script, however it ends: stop Ray and remove its files.

    Args:
        steps: Shell words that run a command on the nodes.
    """
    remove = 'pkill -f "$RAY_TMPDIR/ray/"; rm -rf "$RAY_TMPDIR"'
    clean = "\n  ".join(f"{step} bash -c {shlex.quote(remove)} || true" for step in steps)
    return _LEAVE.replace("CLEAN_NODES", clean)


def sbatch_options(job: Job) -> list[str]:
    """The ``#SBATCH`` lines, without the prefix."""
    options = job.config.slurm
    chosen: list[tuple[str, object]] = [
        ("job-name", job.name),
        ("nodes", job.scale.nnodes),
        ("ntasks-per-node", 1),
        ("time", options.time),
        ("mem", options.memory),
        ("output", f"{job.run_dir}/slurm-%j.log"),
        ("partition", options.partition),
        ("account", options.account),
        ("qos", options.qos),
        ("cpus-per-task", options.cpus_per_node),
    ]
    if job.scale.backend == "gpu":
        chosen.append(("gpus-per-node", job.scale.n_gpus_per_node))
    found = [f"--{name}={shlex.quote(str(value))}" for name, value in chosen if value is not None]
    found += ["--exclusive"] if options.exclusive else []
    found += ["--requeue", "--open-mode=append"] if options.requeue else ["--no-requeue"]
    return [*found, *options.options]
