"""``ray job submit``: the run becomes a job of a Ray cluster that is up already.

The driver runs on the cluster's head node. Variables of the launcher reach every worker as the job's runtime
environment; those of a stage are added by `sftrl_ext.experiments.cluster.on_cluster`.
"""

from __future__ import annotations

import json
import shlex

from sftrl_ext.experiments.cluster.launchers.base import Job, Submission


def launch(job: Job) -> Submission:
    """The ``ray job submit`` of a job."""
    options = job.config.ray
    runtime: dict[str, object] = {"env_vars": dict(job.config.env)} if job.config.env else {}
    if options.working_dir is not None:
        runtime["working_dir"] = options.working_dir
    command = ["ray", "job", "submit", "--address", options.address]
    if runtime:
        command += ["--runtime-env-json", json.dumps(runtime)]
    if options.submission_id is not None:
        command += ["--submission-id", options.submission_id]
    if not options.wait:
        command.append("--no-wait")
    driver = list(job.driver)
    if job.config.setup:
        driver = ["bash", "-c", "\n".join(["set -e", *job.config.setup, f"exec {shlex.join(driver)}"])]
    return Submission(
        tuple([*command, "--", *driver]), hint=f"The run folder, as the nodes see it: {job.run_dir}"
    )
