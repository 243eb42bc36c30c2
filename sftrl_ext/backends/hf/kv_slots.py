"""KV cache with per-sequence lengths and prefix reuse from finished sequences.

Rows may come and go at any step. When the next turn of an episode arrives, its prompt begins with the tokens
of some free slot, and only the rest is prefilled; likewise for instructions that prompts share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

_WIDTH_STEP = 64
"""Slots widen by this many positions at a time."""


class SlotCache(Cache):
    """Slots of keys and values; row i of a forward pass is in slot ``first + i``.

    Every row starts at position 0 of its slot, so that nothing is padded on the left and no row depends on
    the rows beside it. Slots are allocated as they are needed.

    Args:
        layers: Indices of the layers whose tokens attend to earlier ones.
        heads: Key-value heads of a layer.
        size: Size of a head.
        dtype: Type of keys and values.
        max_slots: Upper bound on slots.
        budget: Bytes up to which slots are added only to keep more prefixes for reuse.
    """

    def __init__(
        self,
        layers: Sequence[int],
        heads: int,
        size: int,
        *,
        dtype: torch.dtype = torch.float32,
        max_slots: int = 256,
        budget: int = 1 << 29,
    ) -> None:
        super().__init__(layers=[])
        self.max_slots, self.budget = max_slots, budget
        self._layer_index = {layer: index for index, layer in enumerate(layers)}
        # One tensor for all layers, so that moving a slot is one copy. The axis of 2 is (keys, values).
        self._store = torch.zeros(len(layers), 2, 0, heads, 0, size, dtype=dtype)
        # Cache keys of each slot, how many of them its store holds, and when the slot was last used.
        self._keys = np.zeros((0, 0), dtype=np.int64)
        self._cached = np.zeros(0, dtype=np.int64)
        self._used = np.zeros(0, dtype=np.int64)
        self._clock = 0
        # Of the forward pass under way: its slots, where new tokens go, and the length of its longest row.
        self._rows = slice(0)
        self._targets: tuple[Tensor, Tensor] | None = None
        self._length = 0

    @property
    def slots(self) -> int:
        """Slots allocated so far."""
        return len(self._cached)

    def claim(self, prompt: Sequence[int], free: Sequence[int]) -> tuple[int, int]:
        """Choose a free slot for a prompt and fill it with the longest prefix that any slot holds.

        Args:
            prompt: Its cache keys.
            free: The slots that may be overwritten; if there is none, one is added.

        Returns:
            The slot, and the length of its prefix; at least one token is left to prefill.
        """
        keys = np.asarray(prompt, dtype=np.int64)
        self._reserve(0, len(keys))
        source, prefix = -1, 0
        if self._cached.any():
            differs = self._keys[:, : len(keys)] != keys
            # argmax is the first difference; a row without any has 0 there.
            match = np.where(differs.any(1), differs.argmax(1), len(keys))
            # The last token is always prefilled: its logits give the first sampled token.
            match = np.minimum(np.minimum(match, self._cached), len(keys) - 1)
            source = int(match.argmax())
            prefix = int(match[source])
        if source in free and self._cached[source] <= prefix + 1:
            # The slot holds nothing but the earlier turns of this very episode: take it without a copy.
            self.set_keys(source, keys[:prefix])
            return source, prefix
        slot = self._evict(free)
        if slot != source:
            self._store[:, :, slot, :, :prefix] = self._store[:, :, source, :, :prefix]
        self.set_keys(slot, keys[:prefix])
        return slot, prefix

    def begin(self, first: int, starts: Tensor, tokens: int) -> Tensor | None:
        """Prepare a forward pass that appends new tokens to consecutive slots.

        Args:
            first: The first slot.
            starts: Position of each row's first new token. Shape (rows,).
            tokens: New tokens per row, padding on the right included.

        Returns:
            Attention mask of the pass, added to the scores, shape (rows, 1, tokens, length); None if every
            row is new and attends causally to itself alone.
        """
        self._length = int(starts.max()) + tokens
        self._rows = slice(first, first + len(starts))
        self._reserve(first + len(starts), self._length)
        if tokens > 1 and not starts.any():
            self._targets = None
            return None
        positions = starts[:, None] + torch.arange(tokens)
        self._targets = (torch.arange(first, first + len(starts))[:, None], positions)
        # Also masks what a slot holds beyond the row: padding of this pass, or tokens of an earlier row.
        beyond = torch.arange(self._length) > positions[:, :, None]
        return torch.zeros(beyond.shape, dtype=self._store.dtype).masked_fill_(beyond, -torch.inf)[:, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values, and return those that the pass attends to.

        Args:
            key_states: Shape (rows, heads, tokens, head size).
            value_states: As ``key_states``.
            layer_idx: The layer.
            args: Unused, part of the signature in transformers.
            kwargs: Unused, part of the signature in transformers.
        """
        keys, values = self._store[self._layer_index[layer_idx]]
        if self._targets is None:
            keys[self._rows, :, : self._length] = key_states
            values[self._rows, :, : self._length] = value_states
            return key_states, value_states
        slots, positions = self._targets
        # Advanced indices around a slice put (rows, tokens) first, hence the transposed states.
        keys[slots, :, positions] = key_states.transpose(1, 2)
        values[slots, :, positions] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._length], values[self._rows, :, : self._length]

    def swap(self, a: int, b: int, length: int | None = None) -> None:
        """Exchange two slots.

        Args:
            a: A slot.
            b: Another.
            length: Positions in use; by default those with cache keys.
        """
        if a == b:
            return
        if length is None:
            length = int(max(self._cached[a], self._cached[b]))
        both, other = torch.tensor([a, b]), torch.tensor([b, a])
        self._store[:, :, both, :, :length] = self._store[:, :, other, :, :length]
        for array in (self._keys, self._cached, self._used):
            array[[a, b]] = array[[b, a]]

    def set_keys(self, slot: int, keys: Sequence[int] | NDArray[np.int64]) -> None:
        """Record the cache keys of a slot from its beginning on, and that it was just used."""
        self._clock += 1
        self._keys[slot, : len(keys)] = keys
        self._cached[slot], self._used[slot] = len(keys), self._clock

    def clear(self) -> None:
        """Forget all prefixes, as after a change of the weights."""
        self._cached[:] = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before those of a causal pass: none."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """(length, offset) of the keys of a causal pass."""
        return query_length, 0

    def _evict(self, free: Sequence[int]) -> int:
        """Pick an empty free slot, else a new one within the budget, else the least recently used."""
        slots = len(self._cached)
        affordable = slots < self.max_slots and 2 * self._store.numel() * self._store.itemsize <= self.budget
        if not len(free) or (self._cached[free].all() and affordable):
            self._reserve(slots + 1, 0)
            return slots
        return int(min(free, key=lambda slot: (self._cached[slot] > 0, self._used[slot])))

    def _reserve(self, slots: int, width: int) -> None:
        """Allocate at least so many slots of so many positions."""
        old_slots, old_width = self._keys.shape
        if slots <= old_slots and width <= old_width:
            return
        if slots > old_slots:
            # Doubled, so that growth by single slots copies each only a few times.
            slots = min(max(slots, 2 * old_slots, 8), max(slots, self.max_slots))
        slots, width = max(slots, old_slots), max(-(-width // _WIDTH_STEP) * _WIDTH_STEP, old_width)
        layers, two, _, heads, _, size = self._store.shape
        # Zeros, because masked values are still multiplied, by a weight of zero.
        store = self._store.new_zeros(layers, two, slots, heads, width, size)
        store[:, :, :old_slots, :, :old_width] = self._store
        self._store = store
        self._keys = np.pad(self._keys, ((0, slots - old_slots), (0, width - old_width)))
        self._cached = np.pad(self._cached, (0, slots - old_slots))
        self._used = np.pad(self._used, (0, slots - old_slots))
