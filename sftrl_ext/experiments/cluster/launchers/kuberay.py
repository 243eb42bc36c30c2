"""A RayJob of the KubeRay operator: a Ray cluster of pods, and the driver as its one job.

The image carries this package on every pod; the pods share a volume for the run folder.
"""

from __future__ import annotations

import importlib.metadata

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.launchers.base import Job, Submission, launch_file, render
from sftrl_ext.paths import install_command


def launch(job: Job) -> Submission:
    """Return the manifest of a job, and the command that creates it.

    Raises:
        SftrlError: if the image or the shared volume is not named, containers or volumes of the pod are, or
            lines are to run on every pod.
    """
    config, options = job.config, job.config.kuberay
    for key, value, why in (
        ("image", options.image, "every pod needs this package; docker/Dockerfile builds such an image"),
        ("volume_claim", options.volume_claim, f"the pods share the run folder, at {config.run_root}"),
    ):
        if value is None:
            raise SftrlError(f"launcher.kuberay.{key} is null: {why}.")
    if clashes := sorted({"containers", "volumes"} & options.pod.keys()):
        raise SftrlError(
            f"launcher.kuberay.pod: found {', '.join(clashes)}; expected other keys of a pod's spec."
        )
    if config.setup:
        raise SftrlError("launcher.setup: a RayJob has no place for it; put what it does into the image.")
    path = launch_file(job, "rayjob.yaml")
    text = render(job, "rayjob.yaml.j2", ray_version=_ray_version())
    command = ("kubectl", "apply", "--namespace", options.namespace, "--filename", str(path))
    hint = f"kubectl --namespace {options.namespace} get rayjob {job.name}"
    return Submission(command, {path: text}, hint=hint)


def _ray_version() -> str:
    """Return the installed version; the image must have the same."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise SftrlError(
            f"a RayJob names its Ray version, and there is none here: `{install_command('train')}`."
        ) from None
