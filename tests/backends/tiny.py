"""A language model small enough to check every number of, and what it should answer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sftrl_ext.backends.hf.attention import ATTENTION
from sftrl_ext.backends.hf.engine import Engine, Request

VOCAB = 40
PAD, EOS = 0, 1
CHAT = "{% for m in messages %}{{ m['content'] }}E{% endfor %}"


def tiny_llama(kv_heads: int = 2, seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    """Two layers, 32 wide; its weights are large, so that its distributions are far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.25,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        attn_implementation=ATTENTION,
    )
    return LlamaForCausalLM(config).eval()


def tiny_engine(model: LlamaForCausalLM | None = None, **options) -> Engine:
    return Engine(model or tiny_llama(), **{"eos_token_ids": [EOS], "vocab_size": VOCAB, **options})


def save_folder(folder: Path, **options) -> Path:
    """The model with a tokenizer of single characters, as a Hugging Face folder."""
    letters = ["<pad>", "E", *(chr(c) for c in range(ord("a"), ord("a") + VOCAB - 3)), "?"]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="E", pad_token="<pad>", unk_token="?", chat_template=CHAT
    )
    fast.save_pretrained(folder)
    tiny_llama(**options).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(fast)
    return folder


@torch.no_grad()
def plain_log_probs(model: LlamaForCausalLM, request: Request) -> torch.Tensor:
    """``log_softmax(logits / temperature)`` at every generated token, by one plain pass. Shape (T, V)."""
    ids = torch.tensor([[*request.prompt_ids, *request.result.token_ids]])
    logits = model(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1]
    return (logits / (request.sampling.temperature or 1.0)).log_softmax(-1)


def assert_agrees(model: LlamaForCausalLM, request: Request, tolerance: float = 2e-5) -> None:
    """The log-probabilities of a response are those of a plain forward pass, and greedy means greedy."""
    expected = plain_log_probs(model, request)
    tokens = torch.tensor(request.result.token_ids)
    chosen = expected.gather(-1, tokens[:, None])[:, 0]
    assert (chosen - torch.tensor(request.result.log_probs)).abs().max() < tolerance
    if request.sampling.temperature == 0:
        assert (expected.max(-1).values - chosen).max() < tolerance
