"""Save small policies as verl's checkpoint manager saves an actor: ``save_as_verl <folder> <family>..``."""

from __future__ import annotations

import os
import sys

import torch
import verl  # noqa: F401  with the plugins
from torch.distributed import init_process_group
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.model import get_hf_auto_model_class

from tests.training.policies import tiny_policy


def main(folder: str, *families: str) -> None:
    """One rank, as ``actor`` of a checkpoint: shards, and ``huggingface`` beside them."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    for family in families:
        policy, start = tiny_policy(family), f"{folder}/{family}/start"
        torch.save(policy.state_dict(), f"{folder}/{family}.pt")
        policy.save_pretrained(start)
        config = AutoConfig.from_pretrained(start)
        model = get_hf_auto_model_class(config).from_pretrained(start, config=config)
        contents = {"save_contents": ["model", "hf_model"], "load_contents": ["model"]}
        manager = FSDPCheckpointManager(fully_shard(model), checkpoint_config=contents)
        manager.save_checkpoint(f"{folder}/{family}/actor")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
