"""Disk of a stage's checkpoints, and what TransferQueue carries of pictures, by policy.

A policy is an input: the same numbers with every checkpoint's optimizer kept or only the newest one's, with
weights for evaluation in float32 or bfloat16, with pixels sent along or drawn where they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sftrl_ext.experiments.planner.workload import Workload


@dataclass(frozen=True)
class CheckpointPolicy:
    """What saved steps keep on disk.

    Attributes:
        hf_bytes: Bytes of a weight in the ``huggingface`` folder. verl gathers float32
            (``utils/checkpoint/fsdp_checkpoint_manager.py``), so 4; cast to bf16 it is 2.
        shards_of_all: Every saved step keeps its training shards (weights, optimizer), not only the newest.
        critic: The critic's shards are saved, as a run must resume with them.
    """

    hf_bytes: int = 4
    shards_of_all: bool = True
    critic: bool = True


AS_CONFIGURED = CheckpointPolicy()
"""What the trainers do today."""
NEWEST_ONLY = CheckpointPolicy(hf_bytes=2, shards_of_all=False)
"""Training shards of the newest step alone, and bf16 weights of every saved step."""


def checkpoint_bytes(
    parameters: int, trainable: int, critic: int, saves: int, policy: CheckpointPolicy = AS_CONFIGURED
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
    parameters: int, trainable: int, critic: int, saves: int, policy: CheckpointPolicy = AS_CONFIGURED
) -> float:
    """The same while the last step is being saved."""
    extra = 0 if policy.shards_of_all or saves < 2 else 1
    written = checkpoint_bytes(parameters, trainable, critic, saves, policy)
    return written + extra * shard_bytes(parameters, trainable, critic, policy)


def shard_bytes(
    parameters: int, trainable: int, critic: int, policy: CheckpointPolicy = AS_CONFIGURED
) -> float:
    """Bytes of the training shards of one saved step: float32 weights and Adam's moments."""
    return 4 * parameters + 8 * trainable + (12 * critic if policy.critic else 0)


@dataclass(frozen=True)
class PictureTraffic:
    """Pictures of one update of RL through TransferQueue.

    Attributes:
        pixels_sent: Pixel values travel with the rows; False where trainers draw or cut them themselves.
        bytes_per_number: Of a pixel value; processors make float32.
    """

    pixels_sent: bool = True
    bytes_per_number: int = 4

    def update_bytes(self, workload: Workload, episodes: float) -> float:
        """Bytes of an update's pictures."""
        numbers = episodes * workload.rows * workload.images * workload.pixel_values
        return numbers * self.bytes_per_number if self.pixels_sent else 0.0


def row_bytes(workload: Workload, episodes: float) -> float:
    """Bytes of an update's rows without pictures: about ten numbers of eight bytes a token."""
    return 80.0 * workload.row * workload.rows * episodes
