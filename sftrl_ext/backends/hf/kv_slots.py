"""A key-value cache in which every row has its own length and a finished row is remembered.

Rows may come and go at any step. When the next turn of an episode arrives, its prompt begins with what some
free slot still holds, and only the rest has to be read; likewise for instructions that prompts share.
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
    """Keys and values of rows: row i of a forward pass lives in slot ``first + i``.

    Every row starts at position 0 of its slot, so that nothing is padded on the left and no row depends on
    the rows beside it. Slots are allocated as they are needed.

    Args:
        layers: Indices of the layers whose tokens attend to earlier ones.
        heads: Key-value heads of a layer.
        size: Size of a head.
        dtype: Type of keys and values.
        max_slots: Upper bound on slots.
        budget: Bytes up to which slots are added only to remember more rows.
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
        self._place = {layer: place for place, layer in enumerate(layers)}
        self._store = torch.zeros(len(layers), 2, 0, heads, 0, size, dtype=dtype)
        self._tokens = np.zeros((0, 0), dtype=np.int64)
        self._held = np.zeros(0, dtype=np.int64)
        self._used = np.zeros(0, dtype=np.int64)
        self._clock = 0
        self._rows = slice(0)
        self._index: tuple[Tensor, Tensor] | None = None
        self._length = 0

    @property
    def slots(self) -> int:
        """Slots allocated so far."""
        return len(self._held)

    def claim(self, prompt: Sequence[int], free: Sequence[int]) -> tuple[int, int]:
        """Choose a free slot for a prompt and give it what other slots hold of the prompt's beginning.

        Args:
            prompt: Its tokens.
            free: The slots that may be overwritten; if there is none, one is added.

        Returns:
            The slot, and how many of the prompt's tokens it holds now; one is always left to read.
        """
        tokens = np.asarray(prompt, dtype=np.int64)
        self._reserve(0, len(tokens))
        source, common = -1, 0
        if self._held.any():
            differs = self._tokens[:, : len(tokens)] != tokens
            match = np.where(differs.any(1), differs.argmax(1), len(tokens))
            match = np.minimum(np.minimum(match, self._held), len(tokens) - 1)
            source = int(match.argmax())
            common = int(match[source])
        if source in free and self._held[source] <= common + 1:
            # The slot holds nothing but the earlier turns of this very episode.
            self.hold(source, tokens[:common])
            return source, common
        slot = self._least_missed(free)
        if slot != source:
            self._store[:, :, slot, :, :common] = self._store[:, :, source, :, :common]
        self.hold(slot, tokens[:common])
        return slot, common

    def begin(self, first: int, starts: Tensor, tokens: int) -> Tensor | None:
        """Announce a forward pass that brings new tokens to consecutive slots.

        Args:
            first: The first slot.
            starts: Position of each row's first new token. Shape (rows,).
            tokens: New tokens per row, padding on the right included.

        Returns:
            The mask of that pass, to be added to the scores, shape (rows, 1, tokens, length); None if every
            row is new and attends causally to itself alone.
        """
        self._length = int(starts.max()) + tokens
        self._rows = slice(first, first + len(starts))
        self._reserve(first + len(starts), self._length)
        if tokens > 1 and not starts.any():
            self._index = None
            return None
        positions = starts[:, None] + torch.arange(tokens)
        self._index = (torch.arange(first, first + len(starts))[:, None], positions)
        beyond = torch.arange(self._length) > positions[:, :, None]
        return torch.zeros(beyond.shape, dtype=self._store.dtype).masked_fill_(beyond, -torch.inf)[:, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values, and return all that the pass may look at.

        Args:
            key_states: Shape (rows, heads, tokens, head size).
            value_states: As ``key_states``.
            layer_idx: The layer.
            args: Unused, part of the signature in transformers.
            kwargs: Unused, part of the signature in transformers.
        """
        keys, values = self._store[self._place[layer_idx]]
        if self._index is None:
            keys[self._rows, :, : self._length] = key_states
            values[self._rows, :, : self._length] = value_states
            return key_states, value_states
        slots, positions = self._index
        keys[slots, :, positions] = key_states.transpose(1, 2)
        values[slots, :, positions] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._length], values[self._rows, :, : self._length]

    def swap(self, a: int, b: int, length: int | None = None) -> None:
        """Exchange two slots.

        Args:
            a: A slot.
            b: Another.
            length: Positions in use; those remembered, if not given.
        """
        if a == b:
            return
        if length is None:
            length = int(max(self._held[a], self._held[b]))
        both, other = torch.tensor([a, b]), torch.tensor([b, a])
        self._store[:, :, both, :, :length] = self._store[:, :, other, :, :length]
        for array in (self._tokens, self._held, self._used):
            array[[a, b]] = array[[b, a]]

    def hold(self, slot: int, tokens: Sequence[int] | NDArray[np.int64]) -> None:
        """Note which tokens' keys and values a slot holds from its beginning on."""
        self._clock += 1
        self._tokens[slot, : len(tokens)] = tokens
        self._held[slot], self._used[slot] = len(tokens), self._clock

    def forget(self) -> None:
        """Drop everything that is remembered, as after a change of the weights."""
        self._held[:] = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before those of a causal pass: none."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """(length, offset) of the keys of a causal pass."""
        return query_length, 0

    def _least_missed(self, free: Sequence[int]) -> int:
        """An empty free slot, else a new one if there is budget for it, else the one unused for longest."""
        slots = len(self._held)
        affordable = slots < self.max_slots and 2 * self._store.numel() * self._store.itemsize <= self.budget
        if not len(free) or (self._held[free].all() and affordable):
            self._reserve(slots + 1, 0)
            return slots
        return int(min(free, key=lambda slot: (self._held[slot] > 0, self._used[slot])))

    def _reserve(self, slots: int, width: int) -> None:
        """Make room for so many slots of so many positions."""
        old_slots, old_width = self._tokens.shape
        if slots <= old_slots and width <= old_width:
            return
        if slots > old_slots:
            slots = min(max(slots, 2 * old_slots, 8), max(slots, self.max_slots))
        slots, width = max(slots, old_slots), max(-(-width // _WIDTH_STEP) * _WIDTH_STEP, old_width)
        layers, two, _, heads, _, size = self._store.shape
        # Zeros, because what is masked out is still multiplied, by a weight of zero.
        store = self._store.new_zeros(layers, two, slots, heads, width, size)
        store[:, :, :old_slots, :, :old_width] = self._store
        self._store = store
        self._tokens = np.pad(self._tokens, ((0, slots - old_slots), (0, width - old_width)))
        self._held = np.pad(self._held, (0, slots - old_slots))
        self._used = np.pad(self._used, (0, slots - old_slots))
