"""Attention over the KV slots: few new tokens per row, many cached ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "sftrl_slots"
"""Name of :func:`slot_attention` for ``attn_implementation``."""


def slot_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend with an explicit mask; without one, causally by torch's fused kernel.

    Decoding on a CPU is bound by reading the cache. Here the query heads that share a key-value head read it
    together, where the general path first copies it once per query head: 3 times faster at batch 256 with one
    key-value head for four query heads, the same with as many of either.

    Args:
        module: The attention layer.
        query: Shape (rows, heads, tokens, head size).
        key: Shape (rows, key-value heads, length, head size).
        value: As ``key``.
        attention_mask: Added to the scores, shape (rows, 1, tokens, length), or None.
        dropout: Unused.
        scaling: Factor of the scores.
        kwargs: Options of other implementations.

    Returns:
        Shape (rows, tokens, heads, head size), and None for the weights.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)
    rows, heads, tokens, size = query.shape
    shared, length = key.shape[1], key.shape[2]
    # The query heads of a key-value head are further rows of its matrix product.
    scaled = query.reshape(rows, shared, -1, size) * (size**-0.5 if scaling is None else scaling)
    scores = (scaled @ key.transpose(2, 3)).view(rows, shared, -1, tokens, length)
    scores += attention_mask[:, :, None]
    mixed = scores.softmax(-1).view(rows, shared, -1, length) @ value
    return mixed.view(rows, heads, tokens, size).transpose(1, 2), None


AttentionInterface.register(ATTENTION, slot_attention)
