"""A SkyPilot task: machines of any cloud, a Ray cluster on them, and the driver on the first.

SkyPilot's own Ray is on port 6380; this one is on 6379. It ends with the driver, and the other nodes with it.
"""

from __future__ import annotations

import shlex
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.launchers.base import Job, Submission, launch_file, to_yaml
from sftrl_ext.experiments.local_ray import local_ray_env

_RUN = """\
set -uo pipefail
export RAY_ADDRESS="$(head -n1 <<< "$SKYPILOT_NODE_IPS"):6379"
if [ "$SKYPILOT_NODE_RANK" != 0 ]; then
  until ray status > /dev/null 2>&1; do sleep 5; done
  RAY_START_OTHERS || true  # ends with the head
  exit 0
fi
RAY_START_HEAD &
ray_head=$!
for _ in $(seq 60); do
  if ray status > /dev/null 2>&1; then break; fi
  sleep 5
done
DRIVER
status=$?
kill "$ray_head"
exit "$status"
"""


def launch(job: Job) -> Submission:
    """The task file of a job, and the command that launches it."""
    options = job.config.sky
    path = launch_file(job, "sky.yaml")
    text = to_yaml(task(job))
    if options.managed:
        return Submission(("sky", "jobs", "launch", "--yes", "--name", job.name, str(path)), {path: text})
    hint = f"The machines stay: `sky down {job.name}` gives them back."
    return Submission(("sky", "launch", "--yes", "--cluster", job.name, str(path)), {path: text}, hint=hint)


def task(job: Job) -> dict[str, Any]:
    """The task as SkyPilot reads it.

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
    resources: dict[str, Any] = {
        "infra": options.infra,
        "accelerators": f"{options.accelerator}:{scale.n_gpus_per_node}" if scale.backend == "gpu" else None,
        "cpus": options.cpus,
        "memory": options.memory,
        "disk_size": options.disk_size,
        "image_id": options.image,
        "use_spot": options.use_spot,
    }
    found: dict[str, Any] = {
        "name": job.name,
        "num_nodes": scale.nnodes,
        "resources": {name: value for name, value in resources.items() if value is not None},
        "workdir": options.workdir,
        "envs": dict(job.config.env) or None,
        "file_mounts": dict(options.file_mounts) or None,
        "volumes": {job.config.run_root: options.volume} if options.volume else None,
        "setup": "\n".join(job.config.setup) or None,
        "run": _run(job),
    }
    return {name: value for name, value in found.items() if value is not None}


def _run(job: Job) -> str:
    driver = shlex.join(job.driver)
    if job.scale.nnodes == 1:  # not SkyPilot's own Ray, which runs on every machine
        exports = [
            f"export {name}={value}" for name, value in local_ray_env().items() if name not in job.config.env
        ]
        return "\n".join([*exports, driver]) + "\n"
    head = job.ray_start("--head", "--port=6379")
    text = _RUN.replace("RAY_START_OTHERS", job.ray_start('--address="$RAY_ADDRESS"'))
    return text.replace("RAY_START_HEAD", head).replace("DRIVER", driver)
