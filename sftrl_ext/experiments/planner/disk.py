"""Disk of a stage's checkpoints, and what TransferQueue carries of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner.stages.workload import Workload

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


@dataclass(frozen=True)
class CheckpointPolicy:
    """Contents of saved steps on disk.

    Attributes:
        hf_bytes: Bytes of a weight in the ``huggingface`` folder. verl gathers float32
            (``utils/checkpoint/fsdp_checkpoint_manager.py``), so 4; cast to bf16 it is 2.
        shards_of_all: Every saved step keeps its training shards (weights, optimizer), not only the newest.
        critic: The critic's shards are saved, as a run must resume with them.
    """

    hf_bytes: int = 4
    shards_of_all: bool = True
    critic: bool = True


AS_VERL_WRITES = CheckpointPolicy()
"""Training shards and float32 weights of every saved step."""


def policy_of(recipe: Recipe) -> CheckpointPolicy:
    """Policy that `sftrl_ext.experiments.checkpoint_storage` carries out for a recipe."""
    narrow = recipe.model.dtype in ("bfloat16", "float16")
    return CheckpointPolicy(2 if narrow else 4, recipe.scale.training_state == "all")


def checkpoint_bytes(
    parameters: int, trainable: int, critic: int, saves: int, policy: CheckpointPolicy = AS_VERL_WRITES
) -> float:
    """Bytes of a stage's checkpoints when it has ended.

    While a step is saved, the previous newest one is there as well; see `peak_checkpoint_bytes`.

    Args:
        parameters: Of the policy.
        trainable: Of the policy, those with optimizer states.
        critic: Parameters of the value model; 0 without.
        saves: Saved steps.
        policy: What they keep.
    """
    shards = shard_bytes(parameters, trainable, critic, policy)
    return saves * policy.hf_bytes * parameters + (saves if policy.shards_of_all else 1) * shards


def peak_checkpoint_bytes(
    parameters: int, trainable: int, critic: int, saves: int, policy: CheckpointPolicy = AS_VERL_WRITES
) -> float:
    """The same while the last step is being saved."""
    # The state of the step before stays until the last one is whole, whose model is still in float32.
    extra = 0 if policy.shards_of_all or saves < 2 else 1
    written = checkpoint_bytes(parameters, trainable, critic, saves, policy)
    not_narrowed_yet = (4 - policy.hf_bytes) * parameters
    return written + not_narrowed_yet + extra * shard_bytes(parameters, trainable, critic, policy)


def shard_bytes(
    parameters: int, trainable: int, critic: int, policy: CheckpointPolicy = AS_VERL_WRITES
) -> float:
    """Bytes of the training shards of one saved step: float32 weights and Adam's moments."""
    return 4 * parameters + 8 * trainable + (12 * critic if policy.critic else 0)


def picture_bytes(workload: Workload, episodes: float) -> float:
    """Bytes of an update's pictures, packed by `sftrl_ext.rollout.packed_pictures`, through TransferQueue.

    One byte stands for a pixel value in every frame, and a picture of a Qwen-VL model has two; processors of
    other families give values that travel as they are, in float32.
    """
    numbers = episodes * workload.rows * workload.images * workload.pixel_values
    return numbers * (0.5 if workload.image_tokens > 1 else 4.0)


def row_bytes(workload: Workload, episodes: float) -> float:
    """Bytes of an update's rows without pictures: about ten numbers of eight bytes a token."""
    return 80.0 * workload.row * workload.rows * episodes
