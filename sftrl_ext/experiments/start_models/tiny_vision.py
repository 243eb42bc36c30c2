"""A small Qwen2.5-VL with its own tokenizer, made by the recipe when no trained model is given.

The architecture is the one of the backbones of the larger scales, so a laptop runs their very code: images of
any size, one token for two by two patches, positions in three dimensions, and the processor, chat format and
token builder that verl has for the family. Its image processor works on Pillow alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.auto.processing_auto import AutoProcessor  # noqa: F401  lets processors load, see video
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.experiments.start_models.tiny_model import ChatFormat, train_tokenizer
from sftrl_ext.hf_folder import write_model

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
START, STOP = "<|vision_start|>", "<|vision_end|>"

CHATML = ChatFormat(
    template=(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        "{{ '" + START + IMAGE + STOP + "' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    end="<|im_end|>",
    pad="<|endoftext|>",
    others=("<|im_start|>", START, STOP, IMAGE, VIDEO),
)
"""The chat format of the family."""

_MERGE = 2
_MOST_PATCHES = 1 << 14


def build_tiny_qwen_vl(out: Path, corpus: Iterable[str], config: ModelConfig, seed: int) -> int:
    """Write a randomly initialised small Qwen2.5-VL and its processor as a Hugging Face folder.

    Args:
        out: The folder; replaced whole.
        corpus: Sample texts for the tokenizer.
        config: Sizes; ``vision`` must be given.
        seed: Seed of the weights.

    Returns:
        The number of parameters.

    Raises:
        SftrlError: if the sizes do not fit together.
    """
    assert config.vision is not None
    texts = [*corpus, *(f"{role}\n" for role in ("system", "user", "assistant") for _ in range(200))]
    tokenizer = train_tokenizer(texts, config.vocab_size, config.max_positions, CHATML, names=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_model_config(config, config.vision, tokenizer))
    write_model(out, model, _processor(config.vision, tokenizer))
    return sum(p.numel() for p in model.parameters())


def _processor(vision: VisionConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Images keep their size, rounded to whole tokens."""
    side = vision.patch_size
    images = Qwen2VLImageProcessorPil(
        patch_size=side,
        temporal_patch_size=1,
        merge_size=_MERGE,
        min_pixels=(_MERGE * side) ** 2,
        max_pixels=_MOST_PATCHES * side**2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    videos: Any = VIDEO_PROCESSOR_MAPPING[Qwen2_5_VLConfig]
    return Qwen2_5_VLProcessor(images, tokenizer, videos(), chat_template=tokenizer.chat_template)


def _model_config(
    config: ModelConfig, vision: VisionConfig, tokenizer: PreTrainedTokenizerFast
) -> Qwen2_5_VLConfig:
    pairs, odd = divmod(config.hidden_size, 2 * config.heads)
    if odd or pairs % 4:
        raise SftrlError(
            f"model.hidden_size {config.hidden_size} with {config.heads} heads: a head must have a multiple "
            "of 8 numbers, half of whose pairs carry time and a quarter each height and width."
        )
    token = {name: int(str(tokenizer.convert_tokens_to_ids(name))) for name in (IMAGE, VIDEO, START, STOP)}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": config.hidden_size,
            "intermediate_size": 4 * config.hidden_size,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "max_position_embeddings": config.max_positions,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [pairs // 2, pairs // 4, pairs // 4],
            },
            "use_sliding_window": False,
            "initializer_range": 0.05,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": vision.layers,
            "hidden_size": vision.hidden_size,
            "intermediate_size": 2 * vision.hidden_size,
            "num_heads": vision.heads,
            "patch_size": vision.patch_size,
            "temporal_patch_size": 1,
            "spatial_merge_size": _MERGE,
            "out_hidden_size": config.hidden_size,
            # Every layer sees the whole image: windows save nothing on images this small.
            "fullatt_block_indexes": list(range(vision.layers)),
        },
        image_token_id=token[IMAGE],
        video_token_id=token[VIDEO],
        vision_start_token_id=token[START],
        vision_end_token_id=token[STOP],
        tie_word_embeddings=False,
    )
