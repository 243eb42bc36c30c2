"""The structure of what Kubernetes and SkyPilot accept, as far as the launchers use it, and no other key.

Written from the types of KubeRay's API (ray.io/v1), of Kubernetes' pods, and from SkyPilot's YAML reference.
"""

from __future__ import annotations

from typing import Any

DNS_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}
"""A RayJob's name: KubeRay makes longer ones of it, which may have 63 letters."""
TEXT = {"type": "string", "minLength": 1}
WORDS = {"type": "object", "additionalProperties": {"type": "string"}}


def strict(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


QUANTITIES = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\d+([KMGT]i)?$"}]
    },
}
CONTAINER = strict(
    {
        "name": DNS_NAME,
        "image": TEXT,
        "resources": strict({"limits": QUANTITIES, "requests": QUANTITIES}),
        "volumeMounts": {
            "type": "array",
            "items": strict({"name": DNS_NAME, "mountPath": {"type": "string", "pattern": "^/"}}),
        },
    },
    {
        "env": {"type": "array", "items": strict({"name": TEXT, "value": {"type": "string"}})},
        "envFrom": {"type": "array", "items": strict({"secretRef": strict({"name": DNS_NAME})})},
        "securityContext": strict(
            {"capabilities": strict({"add": {"type": "array", "items": {"const": "IPC_LOCK"}}})}
        ),
    },
)
VOLUME = {
    "oneOf": [
        strict({"name": DNS_NAME, "persistentVolumeClaim": strict({"claimName": DNS_NAME})}),
        strict({"name": DNS_NAME, "emptyDir": strict({"medium": {"const": "Memory"}, "sizeLimit": TEXT})}),
    ]
}
TOLERATION = strict(
    {},
    dict.fromkeys(("key", "operator", "value", "effect"), TEXT) | {"tolerationSeconds": {"type": "integer"}},
)
POD = strict(
    {
        "spec": strict(
            {
                "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
                "volumes": {"type": "array", "items": VOLUME},
            },
            {
                "serviceAccountName": DNS_NAME,
                "nodeSelector": WORDS,
                "tolerations": {"type": "array", "items": TOLERATION},
                "imagePullSecrets": {"type": "array", "items": strict({"name": DNS_NAME})},
                "priorityClassName": DNS_NAME,
            },
        )
    }
)
COUNT = {"type": "integer", "minimum": 0}
WORKERS = strict(
    {
        "groupName": DNS_NAME,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": WORDS,
        "template": POD,
    }
)
CLUSTER = strict(
    {
        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
        "headGroupSpec": strict({"rayStartParams": WORDS, "template": POD}),
        "workerGroupSpecs": {"type": "array", "items": WORKERS},
    },
    {"authOptions": strict({"mode": {"enum": ["token", "disabled"]}})},
)
RAYJOB = strict(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": strict({"name": DNS_NAME, "namespace": DNS_NAME}),
        "spec": strict(
            {
                "entrypoint": TEXT,
                "rayClusterSpec": CLUSTER,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "backoffLimit": COUNT,
            }
        ),
    }
)

SIZE = {"type": "string", "pattern": r"^\d+\+?$"}
SKY_TASK = strict(
    {
        "name": TEXT,
        "num_nodes": {"type": "integer", "minimum": 1},
        "resources": strict(
            {
                "disk_size": {"type": "integer"},
                "use_spot": {"type": "boolean"},
            },
            {
                "accelerators": {"type": "string", "pattern": r"^[A-Za-z0-9-]+:\d+$"},
                "infra": TEXT,
                "cpus": SIZE,
                "memory": SIZE,
                "image_id": TEXT,
            },
        ),
        "run": TEXT,
    },
    {"workdir": TEXT, "envs": WORDS, "file_mounts": WORDS, "volumes": WORDS, "setup": TEXT},
)
