"""A tiny Llama and the rows that it is trained on by RL, as a user's folder has them."""

from __future__ import annotations

from pathlib import Path

from data_prep.build import build_file
from data_prep.options import DataOptions
from tests.rollout.tiny import tiny_tokenizer


def write_model_and_rows(folder: Path, rows: int) -> None:
    """Write ``model/`` and ``rl.parquet``, of hands with at most three attempts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer("chatml")
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **ids)).save_pretrained(folder / "model")
    build_file(DataOptions("rl", folder / "rl.parquet", template="compact", max_attempts=3, rows=rows))
