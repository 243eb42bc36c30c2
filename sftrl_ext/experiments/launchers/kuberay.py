"""A RayJob of the KubeRay operator: a Ray cluster of pods, and the driver as its one job.

The image carries this package on every pod; the pods share a volume for the run folder.
"""

from __future__ import annotations

import importlib.metadata
import shlex
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.launchers.base import Job, Submission, launch_file, to_yaml


def launch(job: Job) -> Submission:
    """The manifest of a job, and the command that creates it."""
    options = job.config.kuberay
    path = launch_file(job, "rayjob.yaml")
    text = to_yaml(manifest(job))
    command = ("kubectl", "apply", "--namespace", options.namespace, "--filename", str(path))
    hint = f"kubectl --namespace {options.namespace} get rayjob {job.name}"
    return Submission(command, {path: text}, hint=hint)


def manifest(job: Job) -> dict[str, Any]:
    """The RayJob.

    Raises:
        SftrlError: if the image or the shared volume is not named, or lines are to run on every pod.
    """
    config, options = job.config, job.config.kuberay
    for key, value, why in (
        ("image", options.image, "every pod needs this package; docker/Dockerfile builds such an image"),
        ("volume_claim", options.volume_claim, f"the pods share the run folder, at {config.run_root}"),
    ):
        if value is None:
            raise SftrlError(f"launcher.kuberay.{key} is null: {why}.")
    if config.setup:
        raise SftrlError("launcher.setup: a RayJob has no place for it; put what it does into the image.")
    offers = {"num-cpus": str(job.ray_cpus), "num-gpus": str(job.scale.n_gpus_per_node)}
    cluster: dict[str, Any] = {
        "rayVersion": _ray_version(),
        "headGroupSpec": {
            # The head trains too, and evaluation runs beside the driver.
            "rayStartParams": {"dashboard-host": "0.0.0.0", **offers},
            "template": _pod(job, "ray-head"),
        },
        "workerGroupSpecs": [],
    }
    others = job.scale.nnodes - 1
    if others:
        cluster["workerGroupSpecs"].append(
            {
                "groupName": "workers",
                "replicas": others,
                "minReplicas": others,
                "maxReplicas": others,
                "rayStartParams": dict(offers),
                "template": _pod(job, "ray-worker"),
            }
        )
    if options.token_auth:
        cluster["authOptions"] = {"mode": "token"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": job.name, "namespace": options.namespace},
        "spec": {
            "entrypoint": shlex.join(job.driver),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": options.keep_s,
            "backoffLimit": options.retries,
            "rayClusterSpec": cluster,
        },
    }


def _pod(job: Job, name: str) -> dict[str, Any]:
    config, options = job.config, job.config.kuberay
    resources: dict[str, Any] = {"cpu": str(options.cpus), "memory": options.memory}
    if job.scale.backend == "gpu":
        resources[options.gpu_resource] = job.scale.n_gpus_per_node
    container: dict[str, Any] = {
        "name": name,
        "image": options.image,
        "resources": {"limits": resources, "requests": dict(resources)},
        "volumeMounts": [
            {"name": "runs", "mountPath": config.run_root},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if config.env:
        container["env"] = [{"name": key, "value": value} for key, value in config.env.items()]
    if options.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in options.secrets]
    spec: dict[str, Any] = {
        "containers": [container],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": options.volume_claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shm}},
        ],
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.node_selector:
        spec["nodeSelector"] = dict(options.node_selector)
    return {"spec": spec}


def _ray_version() -> str:
    """The version here: the image must have the same."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise SftrlError(
            'a RayJob names its Ray version, and there is none here: install "sftrl-ext[train]".'
        ) from None
