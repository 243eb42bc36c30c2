"""``sbatch``: a job that joins its nodes to a Ray cluster of its own and runs the driver on the first.

A run on one node needs no cluster: verl starts its own Ray there. Ray writes below a temporary folder of the
job on every node; at the end what runs from there is ended and the folder is removed. ``ray stop`` would end
every Ray of the user on a node, those of other jobs too.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from sftrl_ext.experiments.cluster.launchers.base import Job, Submission, launch_file, render


def launch(job: Job) -> Submission:
    """Return the ``sbatch`` script of a job, and the command that submits it."""
    path = launch_file(job, "sbatch")
    text = render(
        job,
        "slurm.sbatch.j2",
        sbatch_options=sbatch_options(job),
        one_task=shlex.join(["--nodes=1", "--ntasks=1", *job.config.slurm.srun]),
        wrap="".join(f"{shlex.quote(word)} " for word in job.config.slurm.wrap),
    )
    hint = f"Its log: {job.run_dir}/slurm-<job>.log"
    return Submission(("sbatch", str(path)), {path: text}, [Path(job.run_dir)], hint)


def sbatch_options(job: Job) -> list[str]:
    """Return the ``#SBATCH`` options, without the prefix."""
    options = job.config.slurm
    values = {
        "job-name": job.name,
        "nodes": job.scale.nnodes,
        "ntasks-per-node": 1,
        "time": options.time,
        "mem": options.memory,
        "output": f"{job.run_dir}/slurm-%j.log",
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "cpus-per-task": options.cpus_per_node,
        "gpus-per-node": job.scale.n_gpus_per_node if job.scale.backend == "gpu" else None,
    }
    lines = [f"--{name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None]
    lines += ["--exclusive"] if options.exclusive else []
    lines += ["--requeue", "--open-mode=append"] if options.requeue else ["--no-requeue"]
    if options.requeue and options.signal_s is not None:
        lines.append(f"--signal=B:USR1@{options.signal_s}")
    return [*lines, *options.options]
