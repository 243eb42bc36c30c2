"""A small Llama with its own tokenizer, made by the recipe when no trained model is given.

The tokenizer splits text only at numbers, operators and card ranks, each of which is one token; the prose
between them is merged by byte-level BPE, so that a prompt of any template becomes few tokens and every text
at all can still be written. The model is a stock `transformers` Llama with random weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sftrl_ext.experiments.recipe.schema import ModelConfig
from sftrl_ext.hf_folder import write_model


@dataclass(frozen=True)
class ChatFormat:
    """Chat format of a tokenizer.

    Attributes:
        template: The chat template.
        end: Token that ends a turn.
        pad: Token of padding.
        others: Further tokens that no text is split into.
    """

    template: str
    end: str
    pad: str
    others: tuple[str, ...]


PLAIN = ChatFormat(
    template=(
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    end="<|end|>",
    pad="<|pad|>",
    others=("<|system|>", "<|user|>", "<|assistant|>"),
)
"""One token a role and one for the end of a turn."""

_ATOMS = r"\d{1,2}|[-+*/()=]|(?<![A-Za-z])[AJQK](?![A-Za-z])"
_NAMES = r"[A-Z][a-z]+"


def train_tokenizer(
    corpus: Iterable[str],
    vocab_size: int,
    max_length: int,
    chat: ChatFormat = PLAIN,
    *,
    names: bool = False,
) -> PreTrainedTokenizerFast:
    """Train the tokenizer on sample texts.

    Args:
        corpus: Prompts, answers and feedback as the task writes them.
        vocab_size: Upper bound of the vocabulary, special tokens and the 256 bytes included.
        max_length: Longest sequence of the model, in tokens.
        chat: How a dialogue is written.
        names: Keep capitalised words apart from what is around them: a name has the same tokens wherever it
            stands, so a model can copy one that it has never read.
    """
    atoms = f"{_ATOMS}|{_NAMES}" if names else _ATOMS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(atoms), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Each often enough to be merged into one token, whatever the corpus holds.
    numbers = (str(n) for n in range(100) for _ in range(100))
    tokenizer.train_from_iterator(
        (text for part in (numbers, corpus) for text in part),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[chat.pad, chat.end, *chat.others],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=chat.end,
        pad_token=chat.pad,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat.template
    return fast


def build_tiny_llama(out: Path, corpus: Iterable[str], config: ModelConfig, seed: int) -> int:
    """Write a randomly initialised small Llama and its tokenizer as a Hugging Face folder.

    Args:
        out: The folder; replaced whole.
        corpus: Sample texts for the tokenizer.
        config: Sizes.
        seed: Seed of the weights.

    Returns:
        The number of parameters.
    """
    tokenizer = train_tokenizer(corpus, config.vocab_size, config.max_positions)
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=False,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama)
    write_model(out, model, tokenizer)
    return sum(p.numel() for p in model.parameters())
