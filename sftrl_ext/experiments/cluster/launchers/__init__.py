"""Launchers: how a run gets onto the machines that train it.

A launcher turns a `Job` into a `Submission`. What it starts there is always the same ``sftrl run``, once, on
the head node; stages, state and resuming are those of a run on one machine.
"""

from sftrl_ext.experiments.cluster.launchers import kuberay, ray, sky, slurm
from sftrl_ext.experiments.cluster.launchers.base import LAUNCHERS, Job, Submission, make_job, submit

__all__ = ["LAUNCHERS", "Job", "Submission", "make_job", "submit"]

for _module in (ray, slurm, sky, kuberay):
    LAUNCHERS.add(_module.__name__.rpartition(".")[2], _module.launch)
