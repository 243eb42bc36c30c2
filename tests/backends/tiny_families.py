"""Small models of the families that the engine sees images with, each with its own processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.experiments.start_models.tiny_model import ChatFormat, train_tokenizer
from sftrl_ext.experiments.start_models.tiny_vision import (
    CHATML,
    IMAGE,
    START,
    STOP,
    VIDEO,
    build_tiny_qwen_vl,
)
from sftrl_ext.hf_folder import write_model

SIZES = ModelConfig(
    name="t",
    hidden_size=64,
    layers=2,
    heads=2,
    vocab_size=300,
    max_positions=1024,
    vision=VisionConfig(hidden_size=32, layers=2, heads=2),
)
CORPUS = ["J=10 Q=10 K=10 target 24"] * 50
PATCH = 14


def qwen2_5_vl(out: Path) -> None:
    build_tiny_qwen_vl(out, CORPUS, SIZES, seed=0)


def qwen3_vl(out: Path) -> None:
    """Three layers, of which the first two see more of the image."""
    tokenizer = train_tokenizer(CORPUS, SIZES.vocab_size, SIZES.max_positions, CHATML)
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in (IMAGE, VIDEO, START, STOP)}
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, temporal_patch_size=2, merge_size=2, min_pixels=28**2, max_pixels=1 << 20
    )
    videos: Any = VIDEO_PROCESSOR_MAPPING[Qwen3VLConfig]
    processor = Qwen3VLProcessor(images, tokenizer, videos(), chat_template=tokenizer.chat_template)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": SIZES.max_positions,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token[IMAGE],
        video_token_id=token[VIDEO],
        vision_start_token_id=token[START],
        vision_end_token_id=token[STOP],
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    write_model(out, Qwen3VLForConditionalGeneration(config), processor)


BOS, SEEN = "<|begin_of_text|>", "<|image|>"
LLAMA_CHAT = ChatFormat(
    template=(
        "{{ '" + BOS + "' }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + SEEN + "' }}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    end="<|eot_id|>",
    pad="<|finetune_right_pad_id|>",
    others=("<|start_header_id|>", "<|end_header_id|>", BOS),
)


def mllama(out: Path) -> None:
    """Five layers, of which two look at the images; their gates are open, or nothing would be seen.

    As in the large model the tokenizer begins every text with a token of its own, and the placeholder is a
    token that the model can read and cannot say.
    """
    tokenizer = train_tokenizer(CORPUS, SIZES.vocab_size, SIZES.max_positions, LLAMA_CHAT)
    tokenizer.add_special_tokens({"bos_token": BOS})
    said = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [SEEN]})
    assert tokenizer.convert_tokens_to_ids(SEEN) == said
    begin = (BOS, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[begin]
    )
    images = MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    config = MllamaConfig(
        text_config={
            "vocab_size": said,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "cross_attention_layers": [1, 3],
            "max_position_embeddings": SIZES.max_positions,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 56,
            "patch_size": PATCH,
            "intermediate_layers_indices": [0, 2],
            "vision_output_dim": 3 * 32,
        },
        image_token_index=said,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in ("cross_attn_attn_gate", "cross_attn_mlp_gate", "gate"):
                parameter.fill_(1.0)
    write_model(out, model, processor)


BUILDERS = {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "mllama": mllama}
"""Model type -> what writes such a model into a folder."""
