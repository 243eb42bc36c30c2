"""Small policies of every family that we name, with random weights and no tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from sftrl_ext.hf_folder import load_model
from tests.backends.tiny_vl import folder

TEXT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
QWEN = {
    **TEXT,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
FAMILIES = ("llama", "smollm2", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mllama")


def tiny_policy(family: str) -> Any:
    """A model whose weights are all drawn, norms and biases included: none looks like a newly made one."""
    torch.manual_seed(0)
    model: Any
    if family in ("llama", "smollm2"):
        model = LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=family == "smollm2"))
    elif family == "qwen2_vl":
        sight = {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 14}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=QWEN, vision_config=sight))
    elif family == "qwen2_5_vl":
        sight = {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
        }
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=QWEN, vision_config=sight))
    else:
        model = load_model(folder(family), torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()
