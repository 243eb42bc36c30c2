"""Reading and writing a local Hugging Face folder, with errors that name what is missing in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sftrl_ext.errors import SftrlError


def _checked(folder: str | Path) -> Path:
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise SftrlError(f"{path}: no config.json there; expected a Hugging Face model folder.")
    return path


def load_model(folder: str | Path, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The causal language model of a folder.

    Args:
        folder: Local folder.
        dtype: Type of the weights.
        attention: ``attn_implementation`` of transformers.

    Raises:
        SftrlError: if it is not a model folder, or its weights are missing or broken.
    """
    path = _checked(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError) as error:
        raise SftrlError(f"{path}: no model can be loaded from this folder ({error}).") from error


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        SftrlError: if it is not a model folder, or there is no tokenizer in it.
    """
    path = _checked(folder)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SftrlError(f"{path}: no tokenizer can be loaded from this model folder ({error}).") from error


def eos_token_ids(folder: str | Path, tokenizer: Any) -> set[int]:
    """The tokens that end a response: the tokenizer's, and those of ``generation_config.json`` if any."""
    found = {tokenizer.eos_token_id}
    if (Path(folder) / "generation_config.json").is_file():
        listed = GenerationConfig.from_pretrained(folder).eos_token_id
        found |= set(listed) if isinstance(listed, list) else {listed}
    return {token for token in found if token is not None}


def write_model(out: Path, model: Any, tokenizer: Any) -> None:
    """Write a model and its tokenizer under a temporary name, then put the folder in the place of ``out``."""
    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
