"""A key-value cache in which every row has its own length, so that rows may come and go at any step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "sftrl_slots"
"""Name of the attention function for ``attn_implementation``."""


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
    """Attention of one new token per row; anything else is left to torch's fused kernel.

    Decoding on a CPU is bound by reading the cache. Here the queries that share a key-value head read it
    together, where the general path first copies it once per query head: 3 times faster at batch 256 with one
    key-value head for four query heads, the same with as many of either.

    Args:
        module: The attention layer.
        query: Shape (B, heads, tokens, head size).
        key: Shape (B, key-value heads, length, head size).
        value: As ``key``.
        attention_mask: Added to the scores, shape (B, 1, 1, length), or None.
        dropout: Unused.
        scaling: Factor of the scores.
        kwargs: Options of other implementations.

    Returns:
        Shape (B, tokens, heads, head size), and None for the weights.
    """
    rows, heads, tokens, size = query.shape
    if tokens > 1 or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    grouped = query.reshape(rows, key.shape[1], -1, size) * (scaling or size**-0.5)
    scores = grouped @ key.transpose(2, 3)
    scores += attention_mask
    return (scores.softmax(-1) @ value).view(rows, 1, heads, size), None


AttentionInterface.register(ATTENTION, slot_attention)


class SlotCache(Cache):
    """Keys and values of the rows now being decoded: row i of the batch lives in slot i.

    Every row starts at position 0 of its slot, so that nothing is padded on the left and a row's result does
    not depend on its neighbours. The slots are allocated at first use and grow by doubling.

    A forward pass is announced with :meth:`begin_prefill` or :meth:`begin_decode`; the model's attention
    layers then call :meth:`update`.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._room = (0, 0)
        self._first = 0
        self._rows: Tensor | None = None
        self._positions: Tensor | None = None
        self._width = 0

    def begin_prefill(self, first: int, count: int, width: int) -> None:
        """The next pass brings ``count`` new rows of up to ``width`` tokens into slots from ``first`` on."""
        self._reserve(first + count, width)
        self._first, self._positions, self._width = first, None, width

    def begin_decode(self, positions: Tensor) -> Tensor:
        """The next pass brings one token for each of the first B slots.

        Args:
            positions: Where in its slot each row's token goes. Shape (B,).

        Returns:
            The attention mask of that pass: 0 up to the row's own position, minus infinity beyond.
            Shape (B, 1, 1, longest row).
        """
        count = positions.shape[0]
        self._width = int(positions.max()) + 1
        self._reserve(count, self._width)
        self._rows, self._positions = torch.arange(count), positions
        beyond = torch.arange(self._width) > positions[:, None]
        return torch.zeros(beyond.shape).masked_fill_(beyond, -torch.inf)[:, None, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values, and return all that its queries may look at.

        Args:
            key_states: Shape (rows, heads, tokens, head size); likewise ``value_states``.
            value_states: See ``key_states``.
            layer_idx: The layer.
            args: Unused, part of the signature of transformers.
            kwargs: Unused, part of the signature of transformers.
        """
        self._allocate(layer_idx, key_states, value_states)
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._positions is None:
            rows = slice(self._first, self._first + key_states.shape[0])
            keys[rows, :, : self._width] = key_states
            values[rows, :, : self._width] = value_states
            return key_states, value_states
        keys[self._rows, :, self._positions] = key_states[:, :, 0]
        values[self._rows, :, self._positions] = value_states[:, :, 0]
        count = key_states.shape[0]
        return keys[:count, :, : self._width], values[:count, :, : self._width]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of slot ``source`` over slot ``target``."""
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that precede those of a prefill: none."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """(length, offset) of the keys of a prefill, whose rows attend to themselves only."""
        return query_length, 0

    def _reserve(self, slots: int, width: int) -> None:
        room = self._room
        if slots <= room[0] and width <= room[1]:
            return
        self._room = (_grown(room[0], slots), _grown(room[1], width))
        for tensors in (self._keys, self._values):
            for i, old in enumerate(tensors):
                tensors[i] = self._empty(old)
                tensors[i][: old.shape[0], :, : old.shape[2]] = old

    def _allocate(self, layer_idx: int, keys: Tensor, values: Tensor) -> None:
        while len(self._keys) <= layer_idx:
            self._keys.append(self._empty(keys))
            self._values.append(self._empty(values))

    def _empty(self, like: Tensor) -> Tensor:
        # Zeros, because a position masked out is still multiplied, by a weight of zero.
        return like.new_zeros(self._room[0], like.shape[1], self._room[1], like.shape[3])


def _grown(room: int, need: int) -> int:
    """``room`` if it is enough, else the power of two that is."""
    return max(room, 1 << (need - 1).bit_length())
