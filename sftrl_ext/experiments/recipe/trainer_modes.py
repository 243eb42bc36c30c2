"""verl's trainer modes in a recipe: who generates, on which GPUs, and how old a sample may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.experiments.recipe.schema import Recipe, RLConfig, ScaleConfig
from sftrl_ext.training.settings import CORRECTIONS, TRAINERS

MODES = tuple(TRAINERS)
"""``sync``, ``colocate_async`` and ``separate_async``."""


@dataclass(frozen=True)
class GpuSplit:
    """GPUs of RL: nodes and GPUs per node that train, and those that only generate (0 unless separate)."""

    nodes: int
    gpus: int
    rollout_nodes: int = 0
    rollout_gpus: int = 0

    @property
    def ranks(self) -> int:
        """Training processes."""
        return self.nodes * self.gpus

    @property
    def total(self) -> int:
        """All GPUs."""
        return self.ranks + self.rollout_nodes * self.rollout_gpus


def gpu_split(scale: ScaleConfig) -> GpuSplit:
    """Divide a scale's GPUs between training and generation.

    ``separate_async`` gives ``scale.rollout_gpus`` of them, by default half, to generation: on one node some
    of its GPUs, on several nodes whole nodes, so that shards are gathered within a node.

    Raises:
        SftrlError: if they cannot be divided so.
    """
    nodes, gpus = scale.nnodes, scale.n_gpus_per_node
    if scale.trainer_mode != "separate_async":
        return GpuSplit(nodes, gpus)
    unit = 1 if nodes == 1 else gpus
    wanted = scale.rollout_gpus if scale.rollout_gpus is not None else nodes * gpus // 2 // unit * unit
    if nodes * gpus < 2:
        raise SftrlError(
            "scale.trainer_mode=separate_async generates and trains on different GPUs, and the scale has "
            f"{nodes * gpus} (scale.nnodes={nodes}, scale.n_gpus_per_node={gpus}); expected 2 or more, or "
            "scale.trainer_mode=colocate_async."
        )
    if not 0 < wanted < nodes * gpus or wanted % unit or wanted % scale.tensor_parallel:
        raise SftrlError(
            f"scale.rollout_gpus={wanted}: expected 1 to {nodes * gpus - 1} of the scale's {nodes * gpus} "
            f"GPUs, in multiples of {unit} (whole nodes where there are several) and of "
            f"scale.tensor_parallel={scale.tensor_parallel}."
        )
    if nodes == 1:
        return GpuSplit(1, gpus - wanted, 1, wanted)
    return GpuSplit(nodes - wanted // gpus, gpus, wanted // gpus, gpus)


def mode_overrides(recipe: Recipe, rl: RLConfig) -> list[str]:
    """Overrides of verl's PPO command; none in mode ``sync`` without a correction."""
    scale, mode = recipe.scale, recipe.scale.trainer_mode
    overrides = [f"sftrl.rollout_correction={rl.rollout_correction}"] if rl.rollout_correction else []
    if mode == "sync":
        return overrides
    # verl counts the update that trains on a sample too.
    overrides += [f"mode={mode}", f"trainer.v1.sampler.max_off_policy_threshold={rl.max_staleness + 1}"]
    if mode == "separate_async":
        split = gpu_split(scale)
        overrides += [
            f"trainer.v1.separate_async.parameter_sync_step={rl.minibatches}",
            f"actor_rollout_ref.rollout.nnodes={split.rollout_nodes}",
            f"actor_rollout_ref.rollout.n_gpus_per_node={split.rollout_gpus}",
        ]
    return overrides


def ranks_of_an_engine(scale: ScaleConfig) -> int:
    """Ranks of a node that one rollout engine serves.

    On a CPU all of them: a small model's decoding step costs almost the same for many rows as for few, and
    the other cores have the agent loop to run. ``separate_async`` has engines without a trainer.
    """
    if scale.backend == "cpu" and scale.engine == "hf" and scale.trainer_mode != "separate_async":
        return scale.n_gpus_per_node
    return scale.tensor_parallel


def check_mode(path: Path, recipe: Recipe) -> None:
    """Refuse a trainer mode or a correction that is unknown, or that the scale cannot run.

    Raises:
        SftrlError: naming the key.
    """
    scale, rl = recipe.scale, recipe.budget.rl
    if scale.trainer_mode not in MODES:
        raise SftrlError(f"{path}: scale.trainer_mode: {unknown_name('mode', scale.trainer_mode, MODES)}")
    if scale.rollout_gpus is not None and scale.trainer_mode != "separate_async":
        raise SftrlError(
            f"{path}: scale.rollout_gpus: has no effect with scale.trainer_mode={scale.trainer_mode}; "
            "leave it out, or set scale.trainer_mode=separate_async."
        )
    try:
        gpu_split(scale)
    except SftrlError as error:
        raise SftrlError(f"{path}: {error}") from None
    if rl.rollout_correction is not None and rl.rollout_correction not in CORRECTIONS:
        raise SftrlError(
            f"{path}: budget.rl.rollout_correction: "
            f"{unknown_name('level', rl.rollout_correction, CORRECTIONS)}"
        )
    if scale.trainer_mode != "sync" and rl.max_staleness < 1:
        raise SftrlError(
            f"{path}: budget.rl.max_staleness: {rl.max_staleness}; an asynchronous trainer generates "
            "an update ahead, so expected 1 or more (0 is scale.trainer_mode=sync)."
        )
