"""The options of launchers, as `configs/launcher/*.yaml` and ``launcher.<name>.<key>=`` set them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RayJobConfig:
    """``ray job submit`` to a Ray cluster that runs already."""

    address: str = "http://127.0.0.1:8265"
    """The cluster's dashboard."""
    working_dir: str | None = None
    """A folder to upload; null: the nodes have all that is needed."""
    wait: bool = True
    """Stay and print the log until the job ends."""
    submission_id: str | None = None
    """Name of the job in ``ray job logs``; null: Ray makes one. A name is taken once by a cluster."""


@dataclass
class SlurmConfig:
    """``sbatch``: a job of several nodes that makes its own Ray cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "24:00:00"
    cpus_per_node: int | None = None
    """Cores; null: all of the node if it is exclusive."""
    memory: str = "0"
    """Memory of each node; ``0``: all of it."""
    exclusive: bool = True
    requeue: bool = True
    """Start again after a node failed or the job was pushed aside; the run goes on where it stopped."""
    signal_s: int | None = 120
    """Seconds before the time limit at which a job with ``requeue`` is queued again; null: it ends there."""
    array: bool = False
    """Several jobs, each after the one before it: stages that can run at the same time, as a sweep's arms,
    are tasks of a job array, and those without a GPU run on a node without."""
    array_limit: int | None = None
    """Most tasks of an array that run at the same time; null: all."""
    options: list[str] = field(default_factory=list)
    """Further ``#SBATCH`` options, as in ``launcher.slurm.options=["--constraint=h100"]``."""
    srun: list[str] = field(default_factory=list)
    """Options of every ``srun``, as in ``launcher.slurm.srun=["--container-image=/images/sftrl.sqsh"]``."""
    wrap: list[str] = field(default_factory=list)
    """Words before every command on the nodes, as in
    ``launcher.slurm.wrap=[apptainer,exec,--nv,--bind,/scratch,/images/sftrl.sif]``."""


@dataclass
class SkyConfig:
    """A SkyPilot task."""

    infra: str | None = None
    """``aws``, ``gcp/us-central1``, ``k8s/my-context``; null: SkyPilot chooses."""
    accelerator: str = "H100"
    """Kind of GPU; how many of them is the scale's."""
    cpus: str | None = None
    memory: str | None = None
    disk_size: int = 512
    """GB."""
    image: str | None = None
    use_spot: bool = False
    managed: bool = False
    """A managed job (``sky jobs launch``): started again elsewhere when a machine is taken away."""
    workdir: str | None = "."
    """Folder that is copied to the nodes; null: the image has all that is needed."""
    volume: str | None = None
    """A volume that all nodes mount at ``launcher.run_root``."""
    file_mounts: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Variables of this shell that the nodes get as secrets, as in ``launcher.sky.secrets=[HF_TOKEN]``."""


@dataclass
class KubeRayConfig:
    """A RayJob of the KubeRay operator."""

    image: str | None = None
    """An image with this package on every node (``docker/Dockerfile``); must be named."""
    namespace: str = "default"
    cpus: int = 64
    """Of each pod."""
    memory: str = "512Gi"
    shm: str = "64Gi"
    """Shared memory of each pod: NCCL and Ray's object store."""
    gpu_resource: str = "nvidia.com/gpu"
    volume_claim: str | None = None
    """A claim (ReadWriteMany) that all pods mount at ``launcher.run_root``; must be named."""
    service_account: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Kubernetes secrets whose keys become variables of every pod."""
    pull_secrets: list[str] = field(default_factory=list)
    """Kubernetes secrets of the image's registry."""
    tolerations: list[Any] = field(default_factory=list)
    """Taints that pods tolerate, as in
    ``launcher.kuberay.tolerations=[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]``."""
    rdma_resource: str | None = None
    """Resource of the RDMA device plug-in, as in ``launcher.kuberay.rdma_resource=rdma/ib``."""
    rdma_count: int = 1
    """Of that resource, of each pod."""
    pod: dict[str, Any] = field(default_factory=dict)
    """Further keys of every pod's spec, as in ``+launcher.kuberay.pod.priorityClassName=research``."""
    token_auth: bool = False
    """Ray's token authentication by the operator (KubeRay 1.5.1, Ray 2.52 or newer)."""
    retries: int = 2
    """New clusters after a failure; the run goes on where it stopped."""
    keep_s: int = 300
    """Seconds the cluster stays after the end."""


@dataclass
class LauncherConfig:
    """Options of the launcher of a run; see `sftrl_ext.experiments.cluster.launchers`."""

    name: str = "local"
    program: str = "sftrl"
    """Program to run there: a name on the PATH there, or a path."""
    run_root: str | None = None
    """Folder of run folders, on a file system that all nodes share; null: ``runs`` below this folder."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before everything else on every node (modules, a virtual environment, an installation)."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables on every node (NCCL, caches, trackers). They are written down: no secrets here."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a launcher of a plug-in."""
    interface: str | None = None
    """Network interface of NCCL and gloo, and on Slurm of Ray, as in ``launcher.interface=ib0``; null: their
    choice."""
    ray: RayJobConfig = field(default_factory=RayJobConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    sky: SkyConfig = field(default_factory=SkyConfig)
    kuberay: KubeRayConfig = field(default_factory=KubeRayConfig)
