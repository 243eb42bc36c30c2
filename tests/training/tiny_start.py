"""A tiny Llama and the rows that it is trained on by RL, as a user's folder has them."""

from __future__ import annotations

from pathlib import Path

from data_prep.build import build_file
from data_prep.options import DataOptions
from tests.rollout.tiny import tiny_tokenizer


def write_tiny_llama(folder: Path, layers: int = 2) -> None:
    """Write a Llama, 32 wide, and its tokenizer of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer("chatml")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_model_and_rows(folder: Path, rows: int, layers: int = 2) -> None:
    """Write ``model/`` and ``rl.parquet``, of hands with at most three attempts."""
    write_tiny_llama(folder / "model", layers)
    build_file(DataOptions("rl", folder / "rl.parquet", template="compact", max_attempts=3, rows=rows))
