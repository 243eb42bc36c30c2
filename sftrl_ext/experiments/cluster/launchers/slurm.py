"""``sbatch``: a job that joins its nodes to a Ray cluster of its own and runs the driver on the first.

A run on one node needs no cluster: verl starts its own Ray there. Ray writes below a temporary folder of the
job on every node; at the end what runs from there is ended and the folder is removed. ``ray stop`` would end
every Ray of the user on a node, those of other jobs too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.experiments.cluster.launchers.base import (
    STAGE_OF_TASK,
    Job,
    Submission,
    launch_file,
    render,
)


def launch(job: Job) -> Submission:
    """Return the ``sbatch`` script of a job, or of several, and the command that submits it."""
    if job.config.slurm.array:
        return _launch_groups(job)
    path = launch_file(job, "sbatch")
    hint = f"Its log: {job.run_dir}/slurm-<job>.log"
    return Submission(("sbatch", str(path)), {path: _script(job)}, [Path(job.run_dir)], hint)


def _launch_groups(job: Job) -> Submission:
    """A script that submits a job for each group of stages, each after the one before it."""
    files = {}
    for number, group in enumerate(job.groups, start=1):
        kind = "array" if group.parallel else group.stages[0]
        stages = STAGE_OF_TASK if group.parallel else ",".join(group.stages)
        part = job.part(f"{number}-{kind}", stages, group.uses_gpu)
        files[launch_file(part, "sbatch")] = _script(part, group.stages if group.parallel else ())
    path = launch_file(job, "sh")
    text = render(job, "slurm_jobs.sh.j2", scripts=[str(file) for file in files])
    hint = f"Their logs: {job.run_dir}/slurm-<job>.log; of tasks slurm-<job>_<task>.log"
    command = ("bash", str(path))
    return Submission(command, {**files, path: text}, [Path(job.run_dir)], hint, program="sbatch")


def _script(job: Job, tasks: Sequence[str] = ()) -> str:
    """The script of a job, or of an array with a task for each of some stages."""
    return render(
        job,
        "slurm.sbatch.j2",
        sbatch_options=sbatch_options(job, tasks),
        tasks=tasks,
        one_task=shlex.join(["--nodes=1", "--ntasks=1", *job.config.slurm.srun]),
        wrap="".join(f"{shlex.quote(word)} " for word in job.config.slurm.wrap),
    )


def sbatch_options(job: Job, tasks: Sequence[str] = ()) -> list[str]:
    """Return the ``#SBATCH`` options, without the prefix; with tasks those of an array."""
    options = job.config.slurm
    limit = "" if options.array_limit is None else f"%{options.array_limit}"
    values = {
        "job-name": job.name,
        "nodes": job.scale.nnodes,
        "ntasks-per-node": 1,
        "time": options.time,
        "mem": options.memory,
        "array": f"0-{len(tasks) - 1}{limit}" if tasks else None,
        "output": f"{job.run_dir}/slurm-{'%A_%a' if tasks else '%j'}.log",
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
