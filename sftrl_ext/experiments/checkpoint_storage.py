"""Disk space of checkpoints: training state of the newest only, model weights in the recipe's type.

verl writes into every saved step the shards it resumes from (float32 weights and both moments of Adam, of the
actor and of the critic: 24 bytes a parameter) and a Hugging Face folder in float32. Only the newest shards
can be resumed from, and every engine loads the Hugging Face folder in the recipe's type. Of an 8B model an
older step takes 16 GB in place of 224 GB.
"""

from __future__ import annotations

import json
from pathlib import Path

from sftrl_ext.files import replacing, write_text
from sftrl_ext.hf_folder import declare_stored_dtype, stored_dtype
from sftrl_ext.runs.checkpoints import Checkpoint, latest_step, list_checkpoints

_SHARDS = ("model_world_size_*.pt", "optim_world_size_*.pt", "extra_state_world_size_*.pt")
_NARROWER = {"float32": ("bfloat16", "float16")}


class CheckpointKeeper:
    """Thins out the checkpoints of a stage while it trains.

    Args:
        checkpoints: The folder with verl's ``global_step_N``.
        dtype: Type of the model weights that are kept.
        training_state: One of `sftrl_ext.experiments.recipe.schema.TRAINING_STATES`.
    """

    def __init__(self, checkpoints: Path, dtype: str, training_state: str = "newest") -> None:
        self.checkpoints, self.dtype, self.training_state = checkpoints, dtype, training_state
        self._step = 0

    def thin_out(self) -> None:
        """Remove training state and narrow weights, if verl has finished another checkpoint."""
        step = latest_step(self.checkpoints)
        if step == self._step:
            return
        for checkpoint in list_checkpoints(self.checkpoints):
            if self.training_state == "newest" and checkpoint.step < step:
                remove_training_state(self.checkpoints / f"global_step_{checkpoint.step}")
            narrow_weights(checkpoint, self.dtype)
        self._step = step


def remove_training_state(step_folder: Path) -> None:
    """Delete the shards of actor, critic and optimizer in a saved step; the model folder stays."""
    for pattern in _SHARDS:
        for path in step_folder.rglob(pattern):
            path.unlink()


def narrow_weights(checkpoint: Checkpoint, dtype: str) -> None:
    """Store the model of a checkpoint as ``dtype`` where it has a wider type, file by file.

    Each file is replaced by a rename, so that one half written is never read.

    Args:
        checkpoint: A whole checkpoint.
        dtype: ``bfloat16``, ``float16`` or ``float32``; a type that is not narrower changes nothing.
    """
    if dtype in _NARROWER.get(stored_dtype(checkpoint.folder), ()):
        for path in sorted(checkpoint.folder.glob("*.safetensors")):
            _narrow_file(path, dtype)
        index = checkpoint.folder / "model.safetensors.index.json"
        if index.is_file():
            _correct_size(index)
    declare_stored_dtype(checkpoint.folder)


def _narrow_file(path: Path, dtype: str) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with replacing(path) as partial, safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).to(getattr(torch, dtype)) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, partial, metadata=file.metadata())


def _correct_size(index: Path) -> None:
    """Write the size of the narrowed files into the index of a model of several files."""
    content = json.loads(index.read_text(encoding="utf-8"))
    files = {index.parent / name for name in content["weight_map"].values()}
    size = sum(path.stat().st_size for path in files)
    content["metadata"] = {**content.get("metadata", {}), "total_size": size}
    write_text(index, json.dumps(content, indent=2) + "\n")
