"""Reading and writing a local Hugging Face folder, with errors that name what is missing in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)

from sftrl_ext.backends.video import allow_no_torchvision
from sftrl_ext.errors import SftrlError

allow_no_torchvision()


def _checked(folder: str | Path) -> Path:
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise SftrlError(f"{path}: no config.json there; expected a Hugging Face model folder.")
    return path


def sees_images(config: Any) -> bool:
    """Whether a model's configuration has a vision encoder."""
    return getattr(config, "vision_config", None) is not None


def model_class(config: Any) -> Any:
    """The auto class that loads a model of this configuration with its language head."""
    return AutoModelForImageTextToText if sees_images(config) else AutoModelForCausalLM


def load_model(folder: str | Path, dtype: torch.dtype, attention: str | dict[str, str] = "sdpa") -> Any:
    """The language model of a folder, with its vision encoder if it has one.

    Args:
        folder: Local folder.
        dtype: Type of the weights.
        attention: ``attn_implementation`` of transformers; a dictionary gives one to each part.

    Raises:
        SftrlError: if it is not a model folder, or its weights are missing or broken.
    """
    path = _checked(folder)
    try:
        auto = model_class(AutoConfig.from_pretrained(path))
        return auto.from_pretrained(path, dtype=dtype, attn_implementation=attention)
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


def load_processor(folder: str | Path) -> Any | None:
    """The processor (tokenizer and image processor) of a model folder; None if its model sees no images.

    Raises:
        SftrlError: if the model sees images and there is no processor for them.
    """
    path = _checked(folder)
    if not sees_images(AutoConfig.from_pretrained(path)):
        return None
    try:
        processor = AutoProcessor.from_pretrained(path)
        if getattr(processor, "image_processor", None) is None:
            raise ValueError(f"found a {type(processor).__name__} without an image processor")
        return processor
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise SftrlError(f"{path}: no image processor can be loaded from this folder ({error}).") from error


def parameter_count(folder: Path) -> int:
    """Number of parameters of the model in a Hugging Face folder, embeddings counted once if tied."""
    return sum(p.numel() for p in _empty_model(folder).parameters())


def critic_parameter_count(folder: Path) -> int:
    """Number of parameters of a critic made from the model: its backbone and a head with one output."""
    model = _empty_model(folder)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    untied = 0 if outputs.weight is inputs.weight else sum(p.numel() for p in outputs.parameters())
    hidden = int(outputs.weight.shape[1])
    return sum(p.numel() for p in model.parameters()) - untied + hidden + 1


def _empty_model(folder: Path) -> Any:
    """The model of a folder without storage."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(folder)
    with init_empty_weights():
        model = model_class(config).from_config(config)
    model.tie_weights()
    return model


def eos_token_ids(folder: str | Path, tokenizer: Any) -> set[int]:
    """The tokens that end a response: the tokenizer's, and those of ``generation_config.json`` if any."""
    found = {tokenizer.eos_token_id}
    if (Path(folder) / "generation_config.json").is_file():
        listed = GenerationConfig.from_pretrained(folder).eos_token_id
        found |= set(listed) if isinstance(listed, list) else {listed}
    return {token for token in found if token is not None}


def write_model(out: Path, model: Any, tokenizer: Any) -> None:
    """Write a model and its tokenizer under a temporary name, then put the folder in the place of ``out``.

    Args:
        out: The folder; replaced whole.
        model: A model of transformers.
        tokenizer: Its tokenizer, or the processor that holds it.
    """
    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
