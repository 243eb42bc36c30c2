"""What verl 0.9.1 gets wrong in the Hugging Face folder of a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sftrl_ext.errors import SftrlError

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def stored_dtype(folder: Path) -> str:
    """Type of the weights in a Hugging Face folder, read from the header of a safetensors file.

    Raises:
        SftrlError: if there is no such file, or its weights are of several types.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SftrlError(f"{folder}: no *.safetensors there; was hf_model among checkpoint.save_contents?")
    with open(files[0], "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    if len(found) != 1 or not found <= _NAMES.keys():
        raise SftrlError(
            f"{files[0]}: weights of type {', '.join(sorted(found))}; expected one floating type."
        )
    return _NAMES[found.pop()]


def declare_stored_dtype(folder: Path) -> str:
    """Make ``config.json`` name the type the weights have, and return it.

    verl writes float32 weights beside a configuration that says bfloat16; whoever loads the folder without
    naming a type then gets them rounded.

    Args:
        folder: ``global_step_N/actor/huggingface``, or ``global_step_N/huggingface`` of SFT.
    """
    dtype = stored_dtype(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("dtype") != dtype:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    return dtype
