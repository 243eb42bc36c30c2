"""Plan of one stage, and what the plans of all kinds of stages share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner import disk, memory
from sftrl_ext.experiments.planner.architectures import Architecture
from sftrl_ext.experiments.planner.hardware import Hardware
from sftrl_ext.experiments.planner.memory import ModelEngine, Phase
from sftrl_ext.experiments.planner.stages.workload import Workload
from sftrl_ext.experiments.planner.work import Efficiency, Work

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


@dataclass(frozen=True)
class StagePlan:
    """Plan of one stage.

    Attributes:
        stage: Its name.
        kind: ``sft``, ``rl`` or ``eval``.
        phases: Peaks on one device.
        host: Host memory of a node by part, bytes.
        disk: Bytes of its checkpoints when it has ended, while the last is saved, and of
            `disk.AS_VERL_WRITES`.
        traffic: Bytes of pictures of an update through TransferQueue.
        work: Tokens, FLOPs and time.
        workload: The lengths they were computed from.
        sequences: Sequences that an engine's cache holds; 0 where nothing is generated.
    """

    stage: str
    kind: str
    phases: tuple[Phase, ...]
    host: dict[str, float]
    disk: tuple[float, float, float]
    traffic: float
    work: Work
    workload: Workload
    sequences: float = 0.0

    @property
    def peak(self) -> Phase:
        """The phase with the largest peak."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def host_total(self) -> float:
        """Bytes of host memory of a node."""
        return sum(self.host.values())


@dataclass(frozen=True)
class PlanContext:
    """Recipe, architecture and hardware that all stages share."""

    recipe: Recipe
    architecture: Architecture
    hardware: Hardware
    efficiency: Efficiency
    ranks: int = field(default=1)

    @property
    def cpu(self) -> bool:
        """Models train in the host's memory."""
        return self.recipe.scale.backend == "cpu"


def on_cpu(phase: Phase) -> Phase:
    """The phase on a CPU, where contexts of a device are none."""
    return Phase(phase.name, {**phase.parts, "runtime": 0.0}, phase.keys)


def finish(
    context: PlanContext,
    stage: str,
    kind: str,
    phases: list[Phase],
    engines: list[ModelEngine],
    saves: int,
    workload: Workload,
    amount: Work,
    *,
    traffic: float,
    rows: float,
    sequences: float = 0.0,
) -> StagePlan:
    """Add host memory, disk and the time of writing checkpoints to what a stage of training computes.

    Args:
        context: The recipe's context.
        stage: Name of the stage.
        kind: ``sft`` or ``rl``.
        phases: Peaks on one device.
        engines: Engines of the stage, the policy's first.
        saves: Saved steps.
        workload: Lengths.
        amount: Tokens, FLOPs and time without checkpoints.
        traffic: Bytes of pictures of an update.
        rows: Bytes of an update's rows without them.
        sequences: Sequences that an engine's cache holds.
    """
    a, scale = context.architecture, context.recipe.scale
    policy = engines[0]
    critic = next((engine.parameters for engine in engines if engine.role == "critic"), 0)
    sizes = (policy.parameters, policy.trainable, critic, saves)
    host = memory.host_phases(
        engines, scale.n_gpus_per_node, a.parameters, a.tied, traffic + rows, context.cpu, kind == "rl"
    )
    if context.cpu:
        # What would be on devices is in the host's memory, once for each rank.
        host["phases"] = scale.n_gpus_per_node * max(phase.total for phase in phases)
    kept = disk.policy_of(context.recipe)
    disk_bytes = (
        disk.checkpoint_bytes(*sizes, policy=kept),
        disk.peak_checkpoint_bytes(*sizes, policy=kept),
        disk.checkpoint_bytes(*sizes),
    )
    # verl writes every step in full; what is removed or narrowed later was written too.
    written = disk_bytes[2] / scale.nnodes / context.hardware.disk_write
    amount.seconds["checkpoints"] = written
    return StagePlan(stage, kind, tuple(phases), host, disk_bytes, traffic, amount, workload, sequences)
