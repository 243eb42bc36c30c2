"""Hands: how solvable hands are drawn, and how their number multisets are parted into seen and held-out.

Three draws: ``iid`` takes every card's rank uniformly; ``deck`` takes cards without replacement from one
deck (what the paper's text says); ``authors`` is the draw of the published code: as ``iid``, but where a hand
needs a J, Q or K, one card is drawn among these three and the others uniformly, in a shuffled order. A hand
that has no solution is drawn again. `sftrl_ext.envs.general_points.shares` computes the exact shares of each.
Draws come from a `numpy.random.Generator` only. `hand_block` makes hand ``i`` of a stream a pure function of
(seed, stream, i), a block at a time, so that a million hands take about a second.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sftrl_ext.envs.general_points.cards import FACES, RANKS, Card, suits_of
from sftrl_ext.envs.general_points.families import RuleFamily, find_rules
from sftrl_ext.envs.general_points.rules import LETTERS, RULES, Rule, drawn_rule
from sftrl_ext.envs.general_points.solver import is_solvable
from sftrl_ext.errors import SftrlError, unknown_name

Draw = Literal["iid", "deck", "authors"]
"""Ways to draw cards."""

Part = Literal["all", "seen", "held_out"]
"""Which part of the number multisets a draw may use."""

BLOCK = 512
"""Hands that are drawn together from one random stream."""

HOLDOUT = 0.1
"""Default share of the number multisets that training never sees."""

DRAW_OF_PROFILE: dict[str, Draw] = {"exact": "iid", "authors": "authors"}
"""Profile to the draw of hands where none is named."""

Accept = Callable[[tuple[int, ...], int], bool]
"""A condition on a hand's sorted numbers and target."""

_PATIENCE = 20_000
_IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Hand:
    """One instance of the game: cards, the rule that reads them, and the number to reach."""

    cards: tuple[Card, ...]
    rule: Rule
    target: int = 24

    @property
    def numbers(self) -> tuple[int, ...]:
        """The cards' numbers under the rule, in the cards' order."""
        return self.rule.numbers(self.cards)


@dataclass(frozen=True)
class HandSpec:
    """Distribution of hands to draw.

    Attributes:
        rule: Name of the card rule, or of a family of which each hand has a rule of its own.
        target: Number to reach.
        num_cards: Cards in a hand, 3 to 6.
        draw: "iid", "deck" or "authors".
        suits: "mixed", "black" or "red".
        need_face: Every hand holds a J, Q or K: hands without one are redrawn, or, with draw "authors", one
            card is drawn among the three.
        part: "seen", "held_out" or "all" number multisets; see `is_held_out`.
        holdout: Share of number multisets held out.
        targets: Smallest and largest number to reach, drawn for each hand; None: ``target`` for all.
    """

    rule: str = "face_10"
    target: int = 24
    num_cards: int = 4
    draw: Draw = "iid"
    suits: str = "mixed"
    need_face: bool = False
    part: Part = "all"
    holdout: float = HOLDOUT
    targets: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        rule = find_rules(self.rule)
        colours = suits_of(self.suits)
        if self.draw not in get_args(Draw):
            raise unknown_name("draw", self.draw, get_args(Draw))
        if self.part not in get_args(Part):
            raise unknown_name("part of the number multisets", self.part, get_args(Part))
        if not 3 <= self.num_cards <= 6:
            raise SftrlError(f"num_cards is {self.num_cards!r}, expected 3 to 6.")
        if self.draw == "deck" and self.num_cards > len(rule.ranks) * len(colours):
            raise SftrlError(f"a deck of {self.suits} suits has too few cards for {self.num_cards}.")
        if not 0 <= self.holdout <= 1:
            raise SftrlError(f"holdout is {self.holdout!r}, expected a share between 0 and 1.")
        if self.targets is not None:
            targets = tuple(self.targets)
            if (
                len(targets) != 2
                or not all(type(n) is int for n in targets)
                or not 1 <= targets[0] <= targets[1]
            ):
                raise SftrlError(f"targets is {self.targets!r}, expected two whole numbers, as in [1, 30].")
            object.__setattr__(self, "targets", targets)

    @property
    def family(self) -> RuleFamily | None:
        """The family that each hand draws its rule of; None where all hands have one rule."""
        rules = find_rules(self.rule)
        return rules if isinstance(rules, RuleFamily) else None

    @property
    def all_targets(self) -> range:
        """Every number that a hand may have to reach."""
        low, high = self.targets or (self.target, self.target)
        return range(low, high + 1)

    @property
    def width(self) -> int:
        """Numbers in the choices of a hand; see `HandArrays.choices`."""
        return (0 if self.family is None else len(LETTERS)) + (self.targets is not None)

    def rule_and_target(self, choices: Sequence[int]) -> tuple[Rule, int]:
        """Rule and target of a hand, its own or those of all; see `HandArrays.choices`."""
        rule = RULES[self.rule] if self.family is None else drawn_rule(*choices[: len(LETTERS)])
        return rule, self.target if self.targets is None else choices[-1]


@dataclass(frozen=True)
class HandArrays:
    """Many hands of one spec as arrays of shape (hands, num_cards).

    Attributes:
        spec: What was drawn.
        ranks: Index of each card's rank in the ``ranks`` of the rule or family.
        suits: Index of each card's suit in ``suits_of(spec.suits)``.
        choices: What was drawn for each hand beside its cards, of shape (hands, 0 to 4): the numbers of J, Q
            and K where the rule is drawn, then the target where it is.
    """

    spec: HandSpec
    ranks: _IntArray
    suits: _IntArray
    choices: _IntArray

    def __len__(self) -> int:
        return len(self.ranks)

    def __getitem__(self, index: int) -> Hand:
        rule, target = self.spec.rule_and_target(self.choices[index].tolist())
        letters = suits_of(self.spec.suits)
        cards = tuple(
            Card(rule.ranks[r], letters[s])
            for r, s in zip(self.ranks[index].tolist(), self.suits[index].tolist(), strict=True)
        )
        return Hand(cards, rule, target)


@lru_cache(maxsize=1 << 17)
def is_held_out(numbers: tuple[int, ...], target: int = 24, holdout: float = HOLDOUT) -> bool:
    """True if a number multiset belongs to the part that training never sees.

    The partition is by the sorted numbers and the target, not by ranks: ``K 5 2 4`` and ``10 5 2 4`` are the
    same under ``face_10``. It is a keyed hash, so it is the same in every run and for every seed.
    """
    text = f"{target}:{','.join(map(str, sorted(numbers)))}"
    # Uniform in [0, 2**64): below a share of it is that share of the multisets, and a larger holdout contains
    # every smaller one. Another key would move hands between training and test.
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"general-points held-out").digest()
    return int.from_bytes(digest, "big") < holdout * 2**64


@lru_cache(maxsize=1 << 17)
def _usable(numbers: tuple[int, ...], target: int, part: Part, holdout: float) -> bool:
    if part != "all" and is_held_out(numbers, target, holdout) != (part == "held_out"):
        return False
    return is_solvable(numbers, target)


def _candidates(rng: np.random.Generator, spec: HandSpec, count: int) -> tuple[_IntArray, _IntArray]:
    """Draw ``count`` hands without looking at their numbers; some are dropped, so fewer may come back."""
    rule = find_rules(spec.rule)
    colours = len(suits_of(spec.suits))
    cards = rng.integers(len(rule.ranks) * colours, size=(count, spec.num_cards))
    if spec.family is not None and spec.family.face_share is not None:
        cards = _with_share_of_faces(rng, spec.family.face_share, cards, colours)
    keep = np.ones(count, dtype=bool)
    if spec.draw == "deck":  # a uniform draw with no card twice is a draw without replacement
        in_order = np.sort(cards, axis=1)
        keep &= (in_order[:, 1:] != in_order[:, :-1]).all(axis=1)
    ranks = cards // colours
    if spec.draw == "authors" and spec.need_face:
        faces = [i for i, rank in enumerate(rule.ranks) if rank in FACES]
        forced = rng.integers(spec.num_cards, size=count)  # a uniform place is what a shuffle would give
        ranks[np.arange(count), forced] = rng.choice(faces, count)
    for wanted in ([FACES] if spec.need_face else []) + ([frozenset(rule.extra)] if rule.extra else []):
        member = np.array([rank in wanted for rank in rule.ranks])
        keep &= member[ranks].any(axis=1)
    return ranks[keep], (cards % colours)[keep]


def _with_share_of_faces(rng: np.random.Generator, share: float, cards: _IntArray, colours: int) -> _IntArray:
    """Draw cards anew, of which this share is a J, Q or K; they are the last ranks of the deck."""
    numbered = (len(RANKS) - len(FACES)) * colours
    faces = rng.integers(numbered, len(RANKS) * colours, size=cards.shape)
    return np.where(rng.random(cards.shape) < share, faces, rng.integers(numbered, size=cards.shape))


def _choices(rng: np.random.Generator, spec: HandSpec, count: int) -> _IntArray:
    """Draw what hands have of their own; see `HandArrays.choices`."""
    columns = [np.empty((count, 0), dtype=np.int64)]
    if spec.family is not None:
        columns.append(spec.family.draw(rng, count))
    if spec.targets is not None:
        columns.append(rng.choice(spec.all_targets, size=(count, 1)))
    return np.concatenate(columns, axis=1)


def _numbers(spec: HandSpec, ranks: _IntArray, choices: _IntArray) -> _IntArray:
    """Sorted numbers of hands, of the shape of ``ranks``."""
    if spec.family is None:
        rule = RULES[spec.rule]
        return np.sort(np.array([rule.number(rank) for rank in rule.ranks])[ranks], axis=1)
    values = np.tile(np.arange(1, len(RANKS) + 1), (len(ranks), 1))
    values[:, -len(LETTERS) :] = choices[:, : len(LETTERS)]
    return np.sort(np.take_along_axis(values, ranks, axis=1), axis=1)


def draw_hands(
    rng: np.random.Generator,
    spec: HandSpec,
    count: int,
    accept: Accept | None = None,
) -> HandArrays:
    """Draw solvable hands.

    Args:
        rng: Where the randomness comes from.
        spec: What kind of hands.
        count: How many.
        accept: A further condition on the hand; one that fails it is redrawn.

    Raises:
        SftrlError: if hardly any hand fulfils the spec.
    """
    kept: list[tuple[_IntArray, _IntArray, _IntArray]] = []
    missing, fruitless = count, 0
    while missing > 0:
        # The numbers of candidates are part of the stream: others would give other hands for the same seed.
        tries = min(4 * BLOCK, 2 * missing + 8)
        ranks, suits = _candidates(rng, spec, tries)
        choices = _choices(rng, spec, len(ranks))
        hands = map(tuple, _numbers(spec, ranks, choices).tolist())
        targets = [spec.target] * len(ranks) if spec.targets is None else choices[:, -1].tolist()
        good: list[int] = []
        for i, (numbers, target) in enumerate(zip(hands, targets, strict=True)):
            if _usable(numbers, target, spec.part, spec.holdout) and (
                accept is None or accept(numbers, target)
            ):
                good.append(i)
                if len(good) == missing:
                    break
        fruitless = 0 if good else fruitless + tries
        if fruitless > _PATIENCE:
            raise SftrlError(f"no hand found in {fruitless} draws for {spec}; is the target reachable?")
        kept.append((ranks[good], suits[good], choices[good]))
        missing -= len(good)
    if not kept:
        nothing = np.empty((0, spec.num_cards), dtype=np.int64)
        return HandArrays(spec, nothing, nothing, _choices(rng, spec, 0))
    return HandArrays(spec, *map(np.concatenate, zip(*kept, strict=True)))


def draw_hand(
    rng: np.random.Generator,
    rule: Rule | str = "face_10",
    *,
    target: int = 24,
    num_cards: int = 4,
    draw: Draw = "iid",
    suits: str = "mixed",
    need_face: bool = False,
    accept: Accept | None = None,
) -> Hand:
    """Draw one solvable hand; see `HandSpec` for the arguments and `draw_hands` for ``accept``."""
    name = rule if isinstance(rule, str) else rule.name
    spec = HandSpec(name, target, num_cards, draw, suits, need_face)
    return draw_hands(rng, spec, 1, accept)[0]


def stream_rng(seed: int, stream: str, block: int) -> np.random.Generator:
    """The generator of one block of a named stream: a pure function of its arguments.

    Raises:
        SftrlError: if the seed is negative.
    """
    if seed < 0:
        raise SftrlError(f"seed is {seed}, expected 0 or more.")
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), block])


def hand_block(seed: int, block: int, spec: HandSpec, stream: str = "train") -> HandArrays:
    """Hands ``block * BLOCK`` to ``(block + 1) * BLOCK - 1`` of a stream.

    Args:
        seed: Seed of the whole stream.
        block: Which block.
        spec: What kind of hands.
        stream: Name that keeps training and evaluation draws of one seed apart.
    """
    return draw_hands(stream_rng(seed, stream, block), spec, BLOCK)


def hand_at(seed: int, index: int, spec: HandSpec, stream: str = "train") -> Hand:
    """Hand number ``index`` of a stream: a pure function of its arguments."""
    return hand_block(seed, index // BLOCK, spec, stream)[index % BLOCK]
