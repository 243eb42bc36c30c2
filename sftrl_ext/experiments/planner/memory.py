"""Memory of verl's engines on one device and its host, part by part and phase by phase.

verl's hybrid engine keeps actor, critic, reference and vLLM on the same devices. Each phase of an update has
its own peak: what other engines leave on the device, the engine at work, and its micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sftrl_ext.experiments.planner.architectures import Architecture
from sftrl_ext.experiments.planner.hardware import GIB

PARTS = (
    "weights", "gradients", "optimizer", "unsharded", "activations", "logits", "kv_cache", "others",
    "runtime",
)  # fmt: skip
"""Parts of a phase, in the order in which they are printed."""

RUNTIME = 2.0 * GIB
"""CUDA contexts and NCCL buffers of the trainer's and vLLM's processes, which sleeping does not free."""
VLLM_WORKSPACE = 3 * GIB
"""Activations and CUDA graphs of vLLM, inside its share of the device."""
FRAGMENTATION = 0.05
"""Share of activations and logits that PyTorch's allocator cannot use again at once."""


@dataclass(frozen=True)
class ModelEngine:
    """One FSDP2 engine of verl over all ranks (``workers/engine/fsdp/transformer_impl.py: FSDPEngine``).

    Attributes:
        role: ``actor``, ``critic``, ``reference`` or ``sft``.
        parameters: All of them.
        trainable: Those with gradients and optimizer states; 0 for a forward-only engine.
        ranks: Ranks that they are sharded over.
        largest_group: Parameters that are unsharded together: two layers, the root's head and embeddings.
        param_offload: Weights are on the host outside the engine's own phase.
        optimizer_offload: The same for the optimizer's states.
        offload_policy: FSDP2's ``CPUOffloadPolicy``: weights, gradients and states live on the host always.
            verl forces it on forward-only engines (``_build_fsdp_module``), the reference among them.
        fused: Adam in one kernel; otherwise its square roots are a temporary of half of the states.
        compute_bytes: Of a weight in the forward pass; 2 under bf16 mixed precision.
        start_copy: Parameters of a frozen start model beside it (anchored losses of SFT).
    """

    role: str
    parameters: int
    trainable: int
    ranks: int
    largest_group: int
    param_offload: bool = False
    optimizer_offload: bool = False
    offload_policy: bool = False
    fused: bool = False
    compute_bytes: int = 2
    start_copy: int = 0

    @property
    def weights(self) -> float:
        """Bytes of a rank's shard of the float32 master weights."""
        return 4.0 * (self.parameters + self.start_copy) / self.ranks

    @property
    def gradients(self) -> float:
        """Bytes of a rank's shard of the float32 gradients (``reduce_dtype``)."""
        return 4.0 * self.trainable / self.ranks

    @property
    def states(self) -> float:
        """Bytes of a rank's shard of Adam's two moments."""
        return 8.0 * self.trainable / self.ranks

    @property
    def resident(self) -> float:
        """Device bytes outside the engine's own phase."""
        if self.offload_policy:
            return 0.0
        weights = 4.0 * self.start_copy / self.ranks if self.param_offload else self.weights
        return weights + (0.0 if self.optimizer_offload else self.states)

    @property
    def host(self) -> float:
        """Host bytes of a rank: what is offloaded, gradients included under ``offload_policy``."""
        if self.offload_policy:
            return self.weights + self.gradients + self.states
        weights = 4.0 * self.parameters / self.ranks if self.param_offload else 0.0
        return weights + (self.states if self.optimizer_offload else 0.0)

    @property
    def unsharded(self) -> float:
        """Bytes of gathered weights, and of the float32 gradients of one group before they are scattered."""
        gathered = float(self.compute_bytes * self.largest_group)
        return gathered + (4.0 * self.largest_group if self.trainable else 0.0)


@dataclass(frozen=True)
class Keys:
    """Recipe keys that lower a phase's peak.

    Attributes:
        batch: Lowers what grows with the micro-batch.
        states: Lower what the models need whatever the micro-batch; the number of devices always does.
    """

    batch: str
    states: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """Peak of one phase on one device: `PARTS` to bytes, and the keys that lower it.

    Attributes:
        name: ``generate``, ``old log-probs``, ``reference``, ``values``, ``update critic``, ``update actor``,
            ``sync weights`` or ``train``.
        parts: Bytes by part.
        keys: What to change where the phase does not fit.
    """

    name: str
    parts: dict[str, float] = field(default_factory=dict)
    keys: Keys = Keys("")

    @property
    def total(self) -> float:
        """Bytes of the phase."""
        return sum(self.parts.values())

    @property
    def batch(self) -> float:
        """Bytes that grow with the micro-batch."""
        return self.parts.get("activations", 0.0) + self.parts.get("logits", 0.0)


def training_phases(
    name: str, engine: ModelEngine, others: float, activations: float, logits: float, keys: Keys
) -> list[Phase]:
    """Phases of a training engine: the backward pass over a micro-batch, and the optimizer's step."""
    on_device = 0.0 if engine.offload_policy else 1.0
    parts = {
        "weights": engine.weights * on_device,
        "gradients": engine.gradients * on_device,
        "optimizer": engine.states * on_device,
        "others": others,
        "runtime": RUNTIME,
    }
    slack = 1 + FRAGMENTATION
    work = {"unsharded": engine.unsharded, "activations": activations * slack, "logits": logits * slack}
    backward = Phase(name, parts | work, keys)
    # The square root of the second moment, as large as one of the two moments. Activations are gone by then.
    step = 0.0 if engine.fused or engine.offload_policy else engine.states / 2
    update = Phase(f"{name}: step", parts | {"optimizer": parts["optimizer"] + step}, keys)
    return [backward, update]


def forward_phase(
    name: str, engine: ModelEngine, others: float, activations: float, logits: float, keys: Keys
) -> Phase:
    """A pass without gradients; the engine's optimizer stays where it is between its phases.

    Activations are gone when the logits are used: only what they need beyond the logits is counted.
    """
    weights = 0.0 if engine.offload_policy else engine.weights
    states = 0.0 if engine.offload_policy or engine.optimizer_offload else engine.states
    slack = 1 + FRAGMENTATION
    parts = {
        "weights": weights, "optimizer": states, "others": others, "runtime": RUNTIME,
        "unsharded": float(engine.compute_bytes * engine.largest_group),
        "activations": max(0.0, activations - logits) * slack, "logits": logits * slack,
    }  # fmt: skip
    return Phase(name, parts, keys)


def vllm_phases(
    resident: float,
    weight_bytes: float,
    utilization: float,
    memory: float,
    bucket: float,
    largest_weight: float,
) -> list[Phase]:
    """Generation, and the transfer of new weights into vLLM.

    vLLM takes ``gpu_memory_utilization`` of the whole device, its weights included, whatever else is there;
    in sleep (``free_cache_engine``) it gives back weights and cache. New weights are received into awake bf16
    weights while the trainer's shards are gathered one tensor at a time
    (``workers/engine_workers.py: update_weights``).

    Args:
        resident: Bytes that all engines of the trainer leave on the device.
        weight_bytes: vLLM's weights on this device.
        utilization: ``gpu_memory_utilization``.
        memory: Bytes of the device.
        bucket: Bytes of the transfer's bucket.
        largest_weight: Bytes of the largest tensor in float32, sent alone where the bucket is smaller.
    """
    keys = Keys("", ("verl_ppo=[actor_rollout_ref.rollout.gpu_memory_utilization=..]", "scale.offload=idle"))
    # The workspace is inside the share too, so the keys and values of sequences get less than this.
    cache = max(0.0, utilization * memory - weight_bytes)
    generate = Phase(
        "generate",
        {"weights": weight_bytes, "kv_cache": cache, "others": resident, "runtime": RUNTIME},
        keys,
    )
    transfer = {
        "weights": weight_bytes, "others": resident, "unsharded": bucket + largest_weight, "runtime": RUNTIME,
    }  # fmt: skip
    return [generate, Phase("sync weights", transfer, keys)]


def root_and_layers(architecture: Architecture, critic: bool = False) -> int:
    """Parameters unsharded at the same time: two layers (one is prefetched), embeddings and head.

    ``utils/fsdp_utils.py: apply_fsdp2`` makes groups of the layers, and of the embeddings where they are not
    tied; the rest is the root's group, which is not sharded again until the backward pass ends.
    """
    a = architecture
    embeddings = (a.vocab + a.extra_embeddings) * a.hidden
    head = 0 if critic or a.tied else a.head_parameters
    vision_block = a.vision.parameters // max(1, a.vision.layers) if a.vision else 0
    return 2 * max(a.layer_parameters, vision_block) + embeddings + head


def host_phases(
    engines: list[ModelEngine],
    ranks_per_node: int,
    parameters: int,
    tied: bool,
    traffic: float,
    cpu: bool,
    rl: bool,
) -> dict[str, float]:
    """Host memory of one node: processes, offloaded states, rows, and the larger of loading and saving.

    A model is loaded in float32 by every rank of a node where embeddings are tied, else by the first of all
    ranks (``transformer_impl.py: _build_module``, ``fsdp_utils.py: get_init_weight_context_manager``). Saving
    gathers it in float32 on the first rank, beside an empty model in bf16
    (``fsdp_checkpoint_manager.py: save_checkpoint``).

    Args:
        engines: The engines of the stage.
        ranks_per_node: Ranks of a node.
        parameters: Of the policy.
        tied: Its embeddings are tied.
        traffic: Bytes of rows and pictures that TransferQueue holds during an update.
        cpu: The host's memory is also the device's, and what engines hold is counted there.
        rl: The stage has a rollout engine, an agent loop and a queue.
    """
    if cpu:
        return {"processes": ranks_per_node * _CPU_PROCESS + (_CPU_RL if rl else 0.0), "data": traffic}
    return {
        "processes": ranks_per_node * (_GPU_PROCESS if rl else _GPU_PROCESS / 2) + (_GPU_RL if rl else 0.0),
        "offloaded": sum(engine.host for engine in engines) * ranks_per_node,
        # Loading: float32 in every rank or in one. Saving: float32 (4) beside an empty model in bf16 (2).
        "loading or saving": max(4.0 * ranks_per_node if tied else 4.0, 6.0) * parameters,
        "data": traffic,
    }


_GPU_PROCESS = 9e9
"""Trainer and vLLM of one device: torch, CUDA and their libraries, pinned staging buffers."""
_GPU_RL = 10e9
"""Driver, agent loops, queue and Ray of a stage of RL."""
_CPU_PROCESS = 0.7e9
"""A trainer's process on a CPU."""
_CPU_RL = 3.6e9
"""Driver, agent loops, queue, rollout engine and Ray of a stage of RL on a CPU (``results/*.json``)."""
