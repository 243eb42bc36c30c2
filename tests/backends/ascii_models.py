"""Small models that write plain characters only, so that their text encodes to the tokens they wrote.

Their tokenizers have no merges, and to the models every token but the printable characters and the end of a
turn is improbable. Then a dialogue sent as text is the very stream that the token player keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
from sftrl_ext.experiments.start_models.tiny_vision import build_tiny_qwen_vl
from sftrl_ext.hf_folder import load_model, load_processor, load_tokenizer, write_model

CHARACTERS = [chr(c) for c in range(33, 127) if chr(c) not in "<>|"]


def text_model(path: Path) -> Path:
    sizes = ModelConfig(name="t", hidden_size=32, layers=2, heads=2, vocab_size=261, max_positions=2048)
    build_tiny_llama(path, ["a"], sizes, seed=0)
    return _plain(path, load_tokenizer(path), load_tokenizer(path))


def image_model(path: Path) -> Path:
    sizes = ModelConfig(
        name="t",
        hidden_size=64,
        layers=2,
        heads=2,
        vocab_size=263,
        max_positions=2048,
        vision=VisionConfig(hidden_size=32, layers=2, heads=2),
    )
    build_tiny_qwen_vl(path, ["a"], sizes, seed=0)
    processor: Any = load_processor(path)
    return _plain(path, processor.tokenizer, processor)


def _plain(path: Path, tokenizer: Any, keep: Any) -> Path:
    """Give a folder's model large random weights, and unwanted tokens logits far below all others.

    The first coordinate of every embedding is large and no layer changes it; the unwanted tokens' weights
    point away from it, and those of the end of a turn a little towards it.
    """
    model = load_model(path, torch.float32)
    torch.manual_seed(1)
    wanted = set(tokenizer.convert_tokens_to_ids(CHARACTERS)) | {tokenizer.eos_token_id}
    assert len(wanted) == len(CHARACTERS) + 1 and None not in wanted
    unwanted = [token for token in range(len(tokenizer)) if token not in wanted]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3 if parameter.shape[-1] < 100 else 0.1)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[0] = 0.0
        model.get_input_embeddings().weight[:, 0] = 8.0
        model.lm_head.weight[unwanted] = 0.0
        model.lm_head.weight[unwanted, 0] = -30.0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = 1.0
    write_model(path, model, keep)
    return path
