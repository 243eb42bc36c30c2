"""An evaluation split of hands listed in a file: cards, and where they differ a target and a rule."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.given_files import Record, as_text, read_records, split_of_set, whole_number
from data_prep.schema import data_source
from data_prep.sources import Source, image_seeds
from data_prep.splits import SPLITS, TASK_OF, Split, get_split
from data_prep.task_rows import prompt_table
from sftrl_ext.envs.general_points import TASK
from sftrl_ext.envs.general_points.cards import Card, parse_cards, suits_of
from sftrl_ext.envs.general_points.episode import as_look, make_facts
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.solver import is_solvable
from sftrl_ext.errors import SftrlError

FIELDS = ("cards", "target", "rule")
"""Fields of a hand in a list."""

SIZES = (3, 6)
"""Fewest and most cards of a hand."""


@dataclass(frozen=True)
class GivenHand:
    """One hand of a list."""

    cards: tuple[Card, ...]
    rule: str
    target: int


def given_hand_rows(
    path: Path, name: str, source: Source, *, train_split: str = "id", limit: int | None = None
) -> Iterator[pa.Table]:
    """Prompts of the hands that a file lists, in its order.

    Args:
        path: The list; see `data_prep.given_files.read_records`. Fields: ``cards`` (``K 5 2 4``, with suits
            or without), ``target`` and ``rule``, by default those of the split the set is played as.
        name: Name of the set, which becomes a split.
        source: How hands are played, and the seed of suits and pictures; its splits are not used.
        train_split: The split that is trained on, whose rule ``id_..`` and ``visual_..`` must have.
        limit: Take only so many.

    Raises:
        SftrlError: naming file, row and field, what was found and expected.
    """
    modality = source.settings.modality
    base = split_of_set(name, SPLITS)
    if base == "visual_ood" and modality != "image":
        raise SftrlError(f"{name!r} is about the look of images; expected modality 'image', found 'text'.")
    trained = get_split(train_split)
    [split] = Source(base, settings=source.settings, hands=source.hands).resolved()
    settings = split.settings(source.settings)
    rng = np.random.default_rng([source.seed, zlib.crc32(name.encode())])
    records = read_records(path, "cards", FIELDS)[:limit]
    hands = [_hand(record, split, trained) for record in records]
    cards = [_suited(record, hand, split, modality, rng) for record, hand in zip(records, hands, strict=True)]
    index = np.arange(len(hands), dtype=np.int64)
    facts = [
        make_facts(suited, hand.rule, hand.target, settings, seed)
        for suited, hand, seed in zip(cards, hands, image_seeds(source.seed, index).tolist(), strict=True)
    ]
    if modality == "image":
        from sftrl_ext.envs.general_points.render.decks import check_cards  # text needs no Pillow

        for suited in cards:
            for card in suited:
                check_cards(as_look(settings.look).deck, [card.rank], [card.suit])
    yield prompt_table(TASK, data_source(TASK_OF, modality, name), name, source.seed, facts)


def _hand(record: Record, split: Split, trained: Split) -> GivenHand:
    """One hand, checked: known cards and rule, a solution, and the rule that the set's name promises."""
    where = record.where
    facts = record.fields.get("facts")
    if facts is not None:
        record = Record(where, {name: facts[name] for name in FIELDS if name in facts})
    text = record.fields.get("cards")
    items: Sequence[object] = re.split(r"[\s,;]+", text.strip()) if isinstance(text, str) else text or ()
    try:
        cards = parse_cards(items)
    except SftrlError as error:
        raise SftrlError(f"{where}: field 'cards' is {as_text(text)}: {error}") from None
    if not SIZES[0] <= len(cards) <= SIZES[1]:
        raise SftrlError(f"{where}: field 'cards' has {len(cards)} cards, expected {SIZES[0]} to {SIZES[1]}.")
    rule = str(record.fields.get("rule", split.hands.rule))
    target = whole_number(record, "target", split.hands.target)
    try:
        numbers = RULES[rule].numbers(cards)
    except SftrlError as error:
        raise SftrlError(f"{where}: field 'rule': {error}") from None
    other = split.hands.rule != trained.hands.rule
    if (rule != trained.hands.rule) != other:
        expected = f"another rule than {trained.hands.rule!r}" if other else repr(trained.hands.rule)
        raise SftrlError(
            f"{where}: field 'rule' is {rule!r}; expected {expected}, by the name of the set: training reads "
            f"cards by {trained.hands.rule!r}."
        )
    try:
        solvable = is_solvable(tuple(sorted(numbers)), target)
    except SftrlError as error:
        raise SftrlError(f"{where}: {error}") from None
    if not solvable:
        raise SftrlError(
            f"{where}: field 'cards': {' '.join(map(str, cards))} are {', '.join(map(str, numbers))} under "
            f"rule {rule!r}; expected a hand that makes {target}."
        )
    return GivenHand(cards, rule, target)


def _suited(
    record: Record, hand: GivenHand, split: Split, modality: str, rng: np.random.Generator
) -> tuple[Card, ...]:
    """The cards with suits; those without one get any of the split's."""
    # A suit is drawn for every card, so one that the list names does not change those of others.
    letters = suits_of(split.hands.suits)
    drawn = [letters[number] for number in rng.integers(len(letters), size=len(hand.cards))]
    cards = tuple(Card(card.rank, card.suit or suit) for card, suit in zip(hand.cards, drawn, strict=True))
    for card in cards:
        if modality == "image" and card.suit not in letters:
            raise SftrlError(
                f"{record.where}: field 'cards' has {card}; expected {split.hands.suits} suits "
                f"({', '.join(letters)}), those of split {split.name!r} in this run."
            )
    return cards
