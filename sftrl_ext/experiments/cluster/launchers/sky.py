"""A SkyPilot task: machines of any cloud, a Ray cluster on them, and the driver on the first.

SkyPilot's own Ray is on port 6380; this one is on 6379. It ends with the driver, and the other nodes with it.
"""

from __future__ import annotations

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.launchers.base import Job, Submission, launch_file, render


def launch(job: Job) -> Submission:
    """Return the task file of a job, and the command that launches it.

    Raises:
        SftrlError: if several nodes have no folder in common.
    """
    options, scale = job.config.sky, job.scale
    if scale.nnodes > 1 and options.volume is None:
        raise SftrlError(
            "launcher.sky.volume is null: the nodes must share the run folder. Name a volume that all of "
            f"them can mount at {job.config.run_root} (`sky volumes ls`). A bucket will not do: checkpoints "
            "and logs are appended to and renamed."
        )
    resources = {
        "infra": options.infra,
        "accelerators": f"{options.accelerator}:{scale.n_gpus_per_node}" if scale.backend == "gpu" else None,
        "cpus": options.cpus,
        "memory": options.memory,
        "disk_size": options.disk_size,
        "image_id": options.image,
        "use_spot": options.use_spot,
    }
    path = launch_file(job, "sky.yaml")
    files = {path: render(job, "sky.yaml.j2", resources=resources)}
    secrets = [word for name in options.secrets for word in ("--secret", name)]
    if options.managed:
        return Submission(("sky", "jobs", "launch", "--yes", *secrets, "--name", job.name, str(path)), files)
    hint = f"The machines stay: `sky down {job.name}` gives them back."
    command = ("sky", "launch", "--yes", *secrets, "--cluster", job.name, str(path))
    return Submission(command, files, hint=hint)
