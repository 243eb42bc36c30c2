"""Source of the hands of a file: one split or a mixture, a seed, and play settings.

Row ``i`` of a source is a pure function of the source and ``i``: hands are drawn in blocks of
`sftrl_ext.envs.general_points.hands.BLOCK`, each from a random stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.splits import TRAIN_STREAM, Split, get_split
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.hands import (
    BLOCK,
    DRAW_OF_PROFILE,
    Accept,
    HandArrays,
    HandSpec,
    draw_hands,
    stream_rng,
)
from sftrl_ext.errors import SftrlError, unknown_name


@dataclass(frozen=True)
class Source:
    """Source of the hands of a file.

    Attributes:
        splits: A split name, or several for a mixture.
        seed: Seed of the hands.
        train: Draw from the training stream; otherwise from each split's evaluation stream.
        weights: Share of each split in a mixture; equal shares if empty.
        settings: How the hands are played.
        hands: Fields of `HandSpec` to change in every split (``draw``, ``suits``, ``holdout``, ...), but not
            in a split that is about that field. Without ``draw`` the profile names it, see
            `DRAW_OF_PROFILE`. Cards shown as an image are black unless this says otherwise, because the red
            ones are what ``visual_ood`` evaluates on.
    """

    splits: str | Sequence[str] = "id"
    seed: int = 0
    train: bool = True
    weights: Sequence[float] = ()
    settings: PlaySettings = field(default_factory=PlaySettings)
    hands: Mapping[str, Any] = field(default_factory=dict)

    def resolved(self) -> list[Split]:
        """The splits, with the changes of ``hands`` in them.

        Raises:
            SftrlError: if a split or a field is unknown, or the weights do not fit.
        """
        names = [self.splits] if isinstance(self.splits, str) else list(self.splits)
        weights = list(self.weights)
        if not names or (weights and (len(weights) != len(names) or min(weights) < 0 or sum(weights) <= 0)):
            raise SftrlError(f"expected one weight >= 0 per split, found {weights} for {names}.")
        for key in self.hands:
            if key not in HandSpec.__dataclass_fields__:
                raise unknown_name("field of hands", key, HandSpec.__dataclass_fields__)
        hands = {"draw": DRAW_OF_PROFILE[self.settings.profile], **self.hands}
        if self.settings.modality == "image":
            hands = {"suits": "black", **hands}
        replace(HandSpec(), **hands)  # a wrong value is an error even where no split takes it
        return [get_split(name).changed(hands) for name in names]


@dataclass(frozen=True)
class Part:
    """The hands of one split within a run of rows.

    Attributes:
        split: The split.
        hands: Its hands, ``n`` of them.
        index: int64 of shape (n,): the row number of each.
        chance: float64 in [0, 1) of shape (n, 2): randomness for what is built from each hand.
    """

    split: Split
    hands: HandArrays
    index: NDArray[np.int64]
    chance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hands)


def image_seeds(seed: int, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seeds of the pictures of some rows: a pure function of the seed and each row's number.

    Args:
        seed: Seed of the source.
        index: int64, row numbers.

    Returns:
        int64 of the same shape, each below 2**31.
    """
    with np.errstate(over="ignore"):  # splitmix64, https://prng.di.unimi.it/splitmix64.c
        z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(33)).astype(np.int64)


def draw_parts(source: Source, first: int, last: int, accept: Accept | None = None) -> list[Part]:
    """Draw rows ``first`` to ``last - 1``, one `Part` per split of the source.

    Args:
        source: Where the hands come from.
        first: A multiple of `BLOCK`.
        last: Any number above it.
        accept: Redraw the hands that fail this.
    """
    splits = source.resolved()
    shares = np.array(list(source.weights) or [1.0] * len(splits))
    stream = TRAIN_STREAM if source.train else "+".join(split.stream for split in splits)
    drawn: list[list[Part]] = [[] for _ in splits]
    # Blocks are drawn whole, and cut in `_joined`: a row must not depend on how many rows are built. For the
    # same reason the order of the draws below is fixed.
    for block in range(first // BLOCK, -(-last // BLOCK)):
        rng = stream_rng(source.seed, stream, block)
        index = np.arange(block * BLOCK, (block + 1) * BLOCK)
        which = (
            np.zeros(BLOCK) if len(splits) == 1 else rng.choice(len(splits), BLOCK, p=shares / shares.sum())
        )
        for s, split in enumerate(splits):
            places = index[which == s]
            hands = draw_hands(rng, split.hands, len(places), accept)
            drawn[s].append(Part(split, hands, places, rng.random((len(places), 2))))
    return [_joined(parts, last) for parts in drawn]


def _joined(parts: list[Part], last: int) -> Part:
    index = np.concatenate([part.index for part in parts])
    keep = index < last
    split = parts[0].split
    drawn = [(part.hands.ranks, part.hands.suits, part.hands.choices, part.chance) for part in parts]
    ranks, suits, choices, chance = (np.concatenate(arrays)[keep] for arrays in zip(*drawn, strict=True))
    return Part(split, HandArrays(split.hands, ranks, suits, choices), index[keep], chance)


def runs_of_rows(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last-plus-one row of each run of ``size`` rows.

    Raises:
        SftrlError: if ``rows`` is negative or ``size`` is no multiple of `BLOCK`.
    """
    if rows < 0:
        raise SftrlError(f"rows is {rows}, expected 0 or more.")
    if size <= 0 or size % BLOCK:
        raise SftrlError(f"the size of a row group is {size}, expected a multiple of {BLOCK}.")
    for first in range(0, rows, size):
        yield first, min(first + size, rows)
