"""Tokens, FLOPs and time of a stage.

FLOPs are those of matrix products: two a parameter and token forward, four backward, and attention's own.
Time is FLOPs over a share of the peak, and for decoding the bytes read over a share of the bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sftrl_ext.experiments.planner.architectures import Architecture
from sftrl_ext.experiments.planner.hardware import Hardware
from sftrl_ext.experiments.planner.stages.workload import Workload
from sftrl_ext.runs.token_counts import TokenCount


@dataclass(frozen=True)
class Efficiency:
    """Shares of the hardware's peaks that are reached; assumptions of every time that is printed.

    Attributes:
        train: Of peak FLOP/s in forward and backward passes.
        prefill: Of peak FLOP/s while prompts are read.
        bandwidth: Of the memory bandwidth while decoding.
        decode_overhead: Seconds of one decoding step beside its memory traffic.
        stragglers: Generation takes this many times the mean rank's time: the longest episode ends it.
        start: Seconds from the start of a training stage to its first step.
        step: Seconds of an SFT step beside the model.
        update: Seconds of an RL update beside the model: queue, episodes, advantages.
    """

    train: float
    prefill: float
    bandwidth: float
    decode_overhead: float
    stragglers: float
    start: float
    step: float
    update: float


GPU = Efficiency(0.35, 0.45, 0.6, 0.012, 1.5, 240.0, 0.3, 10.0)
"""bf16 on NVIDIA cards: published shares of FSDP2 are 0.35 to 0.5, of vLLM's decoding 0.5 to 0.8."""
CPU = Efficiency(0.36, 0.36, 0.5, 0.004, 1.3, 25.0, 0.03, 4.0)
"""Float32 on a core of a busy machine, fitted to the stages of ``results/*.json`` (see `calibration`)."""


@dataclass(frozen=True)
class Work:
    """Tokens, FLOPs and seconds of a stage by phase.

    Attributes:
        trained: Tokens of rows that are trained on, every epoch counted.
        generated: Tokens that the policy writes.
        flops: FLOPs by phase, of all devices together, recomputation included.
        seconds: Wall seconds by phase.
        tokens: Tokens of every pass, as a run counts them for the compute axis of its report.
    """

    trained: float
    generated: float
    flops: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: TokenCount = field(default_factory=TokenCount)

    @property
    def total_flops(self) -> float:
        """FLOPs of all phases."""
        return sum(self.flops.values())

    @property
    def hours(self) -> float:
        """Wall hours of all phases."""
        return sum(self.seconds.values()) / 3600


def forward_flops(
    architecture: Architecture, row: float, images: float, patches: int, critic: bool = False
) -> float:
    """FLOPs of one forward pass over a row.

    Args:
        architecture: The model.
        row: Tokens of the row.
        images: Images in it.
        patches: Patches of an image.
        critic: Without the output head.
    """
    a = architecture
    weights = a.decoder_parameters + (0 if critic else a.head_parameters)
    text = (
        2.0 * weights * row + 2.0 * a.layers * a.query_width * row**2
    )  # causal: half of all pairs, two products
    return text + images * 2.0 * a.vision_parameters * patches


def train_flops(forward: float, recompute: bool) -> float:
    """FLOPs of a training pass: the backward pass costs two forward ones, recomputation a further one."""
    return forward * (4 if recompute else 3)


def sft_work(
    architecture: Architecture,
    hardware: Hardware,
    efficiency: Efficiency,
    workload: Workload,
    *,
    rows: float,
    steps: int,
    devices: int,
    recompute: bool,
    padding: float = 1.0,
    anchored: bool = False,
) -> Work:
    """Work of an SFT stage.

    Args:
        architecture: The model.
        hardware: Of each device.
        efficiency: Shares of its peaks.
        workload: Lengths.
        rows: Rows of all steps.
        steps: Optimizer steps.
        devices: Devices.
        recompute: Gradient checkpointing.
        padding: Computed tokens over valid ones.
        anchored: The start model reads each row too.
    """
    forward = forward_flops(architecture, workload.sft_row, workload.images, workload.patches) * rows
    passes = train_flops(forward, recompute) + (forward if anchored else 0.0)
    rate = devices * efficiency.train * hardware.flops
    seconds = {
        "start": efficiency.start,
        "train": passes * padding / rate,
        "steps": steps * efficiency.step,
    }
    trained = rows * workload.sft_row
    tokens = TokenCount(trained=trained, forward=trained if anchored else 0.0, sequence=trained)
    return Work(trained, 0.0, {"train": passes}, seconds, tokens)


@dataclass(frozen=True)
class RLShape:
    """Sizes of a stage of RL.

    Attributes:
        updates: Updates.
        episodes: Episodes of an update.
        epochs: Passes over an update's rows.
        devices: Devices.
        tensor_parallel: Devices of one vLLM engine.
        sequences: Most sequences that an engine decodes at a time.
        critic: There is a value model.
        reference: The reference reads every row of a checked update.
        checked: Share of updates that compute old and reference log-probabilities (`sftrl.check_every`).
        recompute: Gradient checkpointing.
        padding: Computed tokens over valid ones.
        cache: Generation keeps keys and values; without, every token reads its whole prefix.
        sync_bytes: Bytes of weights sent to the engines after each update.
        offload_bytes: Bytes moved between device and host in each update, of one device.
        weight_bytes: Bytes of a weight while decoding.
    """

    updates: int
    episodes: float
    epochs: int
    devices: int
    tensor_parallel: int = 1
    sequences: float = 256
    critic: bool = True
    reference: bool = True
    checked: float = 1.0
    recompute: bool = True
    padding: float = 1.0
    cache: bool = True
    sync_bytes: float = 0.0
    offload_bytes: float = 0.0
    weight_bytes: int = 2


def rl_work(
    architecture: Architecture, hardware: Hardware, efficiency: Efficiency, workload: Workload, shape: RLShape
) -> Work:
    """Work of a stage of RL: generation, the passes over its rows, and the updates."""
    rows = shape.episodes * workload.rows
    patches = workload.patches
    forward = forward_flops(architecture, workload.row, workload.images, patches) * rows
    value = forward_flops(architecture, workload.row, workload.images, patches, critic=True) * rows
    read = workload.row - workload.turns * workload.answer
    flops = {
        "prefill": forward_flops(architecture, read, workload.images, patches) * rows,
        "decode": 2.0 * architecture.parameters * rows * workload.turns * workload.answer,
        "old log-probs": shape.checked * forward,
        "reference": shape.checked * forward if shape.reference else 0.0,
        "values": value if shape.critic else 0.0,
        "update critic": shape.epochs * train_flops(value, shape.recompute) if shape.critic else 0.0,
        "update actor": shape.epochs * train_flops(forward, shape.recompute),
    }
    rate = shape.devices * hardware.flops
    seconds = {
        phase: work * shape.padding / (rate * efficiency.train)
        for phase, work in flops.items()
        if phase not in ("prefill", "decode")
    }
    seconds["prefill"] = flops["prefill"] / (rate * efficiency.prefill)
    if shape.cache:
        seconds["decode"] = decode_seconds(architecture, hardware, efficiency, workload, shape)
    else:
        seconds["decode"], flops["decode"] = uncached_decoding(
            architecture, hardware, efficiency, workload, shape
        )
    seconds["sync weights"] = (
        shape.sync_bytes / min(hardware.interconnect, hardware.bandwidth) * (4 if shape.devices > 1 else 2)
    )
    seconds["offload"] = shape.offload_bytes / hardware.host_link
    seconds["beside the model"] = efficiency.update
    total = {phase: value * shape.updates for phase, value in seconds.items()}
    trained = rows * workload.row * shape.epochs * shape.updates
    generated = rows * workload.turns * workload.answer * shape.updates
    every = {phase: value * shape.updates for phase, value in flops.items()}
    once = rows * workload.row * shape.updates
    tokens = TokenCount(
        trained=trained,
        generated=generated,
        prefill=rows * read * shape.updates,
        forward=once * shape.checked * (2 if shape.reference else 1),
        trained_critic=trained if shape.critic else 0.0,
        forward_critic=once if shape.critic else 0.0,
        sequence=once,
    )
    return Work(trained, generated, every, {"start": efficiency.start, **total}, tokens)


def decode_seconds(
    architecture: Architecture, hardware: Hardware, efficiency: Efficiency, workload: Workload, shape: RLShape
) -> float:
    """Seconds of an update's decoding with a cache, over its engines.

    A step of ``b`` sequences reads the weights once and each sequence's keys and values, or is bound by the
    products of ``b`` tokens.
    """
    engines = max(1, shape.devices // shape.tensor_parallel)
    rows = shape.episodes * workload.rows / engines
    # Points of a route follow each other: an episode is one sequence at a time.
    parallel = max(1.0, min(shape.sequences, shape.episodes / engines))
    step = decode_step(architecture, hardware, efficiency, workload.row, parallel, shape)
    return rows * workload.turns * workload.answer / parallel * step * efficiency.stragglers


def decode_step(
    architecture: Architecture,
    hardware: Hardware,
    efficiency: Efficiency,
    context: float,
    sequences: float,
    shape: RLShape,
) -> float:
    """Seconds of one decoding step of an engine."""
    kv = architecture.kv_bytes(shape.weight_bytes) * context * sequences
    read = (shape.weight_bytes * architecture.parameters + kv) / shape.tensor_parallel
    products = 2.0 * architecture.parameters * sequences / shape.tensor_parallel
    bound = max(
        read / (hardware.bandwidth * efficiency.bandwidth), products / (hardware.flops * efficiency.prefill)
    )
    return bound + efficiency.decode_overhead


def uncached_decoding(
    architecture: Architecture, hardware: Hardware, efficiency: Efficiency, workload: Workload, shape: RLShape
) -> tuple[float, float]:
    """Seconds and FLOPs of an update's decoding that reads the whole prefix for each token, row by row."""
    tokens = shape.episodes * workload.rows * workload.turns * workload.answer
    each = forward_flops(architecture, workload.row, workload.images, workload.patches)
    step = max(
        each / (hardware.flops * efficiency.train),
        shape.weight_bytes * architecture.parameters / (hardware.bandwidth * efficiency.bandwidth),
    )
    # Layers of kernels launched one by one, about as long as a decoding step of a large model.
    return tokens / shape.devices * (step + 4 * efficiency.decode_overhead), each * tokens
