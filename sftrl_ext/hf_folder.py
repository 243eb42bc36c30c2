"""Hugging Face model folders: load, write and inspect them, with errors that name the missing file.

Importing this module imports neither torch nor transformers, and lets transformers load a Qwen-VL processor
without torchvision. Such a processor owns a video processor, of which there is none without torchvision. A
stand-in of the same name lets the processor load, and a folder saved with it loads anywhere; only a video
fails.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sftrl_ext.after_import import after_import
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_text

if TYPE_CHECKING:
    import torch

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_QWEN_VL_CONFIGS = ("Qwen2VLConfig", "Qwen2_5_VLConfig", "Qwen3VLConfig")


def has_vision(config: Any) -> bool:
    """True if a model's configuration has a vision encoder."""
    return getattr(config, "vision_config", None) is not None


def model_class(config: Any) -> Any:
    """Auto class that loads a model of this configuration with its language head."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if has_vision(config) else AutoModelForCausalLM


def load_model(folder: str | Path, dtype: torch.dtype, attention: str | dict[str, str] = "sdpa") -> Any:
    """Load the language model of a folder, with its vision encoder if it has one.

    Args:
        folder: Local folder.
        dtype: Type of the weights.
        attention: ``attn_implementation`` of transformers; a dictionary gives one to each part.

    Raises:
        SftrlError: if it is not a model folder, or its weights are missing or broken.
    """
    from transformers import AutoConfig

    with folder_errors(folder, "model") as path:
        auto = model_class(AutoConfig.from_pretrained(path))
        model, loaded = auto.from_pretrained(
            path, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
    # transformers draws weights that a folder lacks at random.
    missing = sorted(loaded["missing_keys"])
    if missing:
        names = ", ".join(missing[:3])
        raise SftrlError(f"{path}: {len(missing)} weights of the model are missing: {names}; expected all.")
    return model


def load_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        SftrlError: if it is not a model folder, or there is no tokenizer in it.
    """
    from transformers import AutoTokenizer

    with folder_errors(folder, "tokenizer") as path:
        return AutoTokenizer.from_pretrained(path)


def load_processor(folder: str | Path) -> Any | None:
    """Load the processor (tokenizer and image processor) of a model folder; None for a text model.

    Raises:
        SftrlError: if the model has a vision encoder and the folder no image processor.
    """
    from transformers import AutoConfig, AutoProcessor

    with folder_errors(folder, "image processor") as path:
        if not has_vision(AutoConfig.from_pretrained(path)):
            return None
        processor = AutoProcessor.from_pretrained(path)
        if getattr(processor, "image_processor", None) is None:
            raise ValueError(f"found a {type(processor).__name__} without an image processor")
        return processor


def parameter_count(folder: Path) -> int:
    """Number of parameters of the model in a folder, embeddings counted once if tied."""
    return sum(p.numel() for p in _empty_model(folder).parameters())


def critic_parameter_count(folder: Path) -> int:
    """Number of parameters of a critic made from the model: its backbone and a head with one output."""
    model = _empty_model(folder)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    untied = 0 if outputs.weight is inputs.weight else sum(p.numel() for p in outputs.parameters())
    hidden = int(outputs.weight.shape[1])
    return sum(p.numel() for p in model.parameters()) - untied + hidden + 1


def eos_token_ids(folder: str | Path, tokenizer: Any) -> set[int]:
    """Tokens that end a response: the tokenizer's, and those of ``generation_config.json`` if any."""
    from transformers import GenerationConfig

    ids = {tokenizer.eos_token_id}
    if (Path(folder) / "generation_config.json").is_file():
        with folder_errors(folder, "generation_config.json"):
            listed = GenerationConfig.from_pretrained(folder).eos_token_id
            ids |= set(listed) if isinstance(listed, list) else {listed}
    return {token for token in ids if token is not None}


def write_model(out: Path, model: Any, tokenizer: Any) -> None:
    """Write a model and its tokenizer under a temporary name, then rename the folder to ``out``.

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


def stored_dtype(folder: Path) -> str:
    """Type of the weights in a folder, read from the header of a safetensors file.

    Raises:
        SftrlError: if there is no such file, or its weights are of several types.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SftrlError(f"{folder}: no *.safetensors there; was hf_model among checkpoint.save_contents?")
    with folder_errors(folder, f"header of {files[0].name}"), files[0].open("rb") as file:
        # Format of safetensors: the header's size in 8 bytes, the header as JSON, the weights.
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    dtypes = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    if len(dtypes) != 1 or not dtypes <= _DTYPES.keys():
        raise SftrlError(
            f"{files[0]}: weights of type {', '.join(sorted(dtypes))}; expected one floating type."
        )
    return _DTYPES[dtypes.pop()]


def declare_stored_dtype(folder: Path) -> str:
    """Make ``config.json`` name the type the weights have, and return it.

    verl 0.9.1 writes float32 weights beside a configuration that says bfloat16; whoever loads the folder
    without naming a type then gets them rounded.

    Args:
        folder: ``global_step_N/actor/huggingface``, or ``global_step_N/huggingface`` of SFT.
    """
    dtype = stored_dtype(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("dtype") != dtype:
        write_text(path, json.dumps({**config, "dtype": dtype}, indent=2) + "\n")
    return dtype


def allow_no_torchvision() -> None:
    """Let processors load without torchvision; nothing changes where it is installed."""
    after_import("transformers.models.auto.processing_auto", _register_video_processors)


def _register_video_processors(module: ModuleType) -> None:
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return
    import transformers
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.video_processing_utils import BaseVideoProcessor

    class Qwen2VLVideoProcessor(BaseVideoProcessor):
        """Stand-in for a video processor; the name is the one saved in model folders."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise ImportError("videos need torchvision, which is not installed.")

    class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
        """As above, for Qwen3-VL."""

    # What the package exports in its place cannot even be subclassed.
    setattr(transformers, "BaseVideoProcessor", BaseVideoProcessor)  # noqa: B010
    for name in _QWEN_VL_CONFIGS:
        kind = Qwen3VLVideoProcessor if name.startswith("Qwen3") else Qwen2VLVideoProcessor
        AutoVideoProcessor.register(getattr(transformers, name), kind, exist_ok=True)


@contextmanager
def folder_errors(folder: str | Path, part: str) -> Iterator[Path]:
    """Path of a model folder; whatever goes wrong in loading a part of it is an error that names both.

    transformers, tokenizers and safetensors raise errors of any type for broken files.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise SftrlError(f"{path}: no config.json there; expected a Hugging Face model folder.")
    try:
        yield path
    except SftrlError:
        raise
    except Exception as error:
        cause = (str(error).strip() or "no message").splitlines()[0]
        message = f"no {part} can be loaded from this model folder ({type(error).__name__}: {cause})."
        raise SftrlError(f"{path}: {message}") from error


def _empty_model(folder: Path) -> Any:
    """Build the model of a folder without storage."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig

    with folder_errors(folder, "configuration"):
        config = AutoConfig.from_pretrained(folder)
    with init_empty_weights():
        model = model_class(config).from_config(config)
    model.tie_weights()
    return model


allow_no_torchvision()
