"""Rows of the card game: RL prompts, expert answers, and dialogues with mistakes in them.

Each builder is a generator of tables, a row group at a time, for `data_prep.writer.write_rows`. Row ``i`` is a
pure function of the arguments and ``i``: a longer file starts with the same rows as a shorter one.
Hands are drawn and columns made with numpy and Arrow, and every text comes from the same `PromptTemplate` the
episode uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from data_prep.schema import messages_array, rows_table
from data_prep.splits import TRAIN_STREAM, Split, get_split
from data_prep.writer import ROW_GROUP
from sftrl_ext.envs.general_points.cards import Card, suits_of
from sftrl_ext.envs.general_points.episode import PlaySettings, facts_text, make_facts
from sftrl_ext.envs.general_points.hands import BLOCK, HandArrays, HandSpec, draw_hands, stream_rng
from sftrl_ext.envs.general_points.prompts import expert_answer, load_template
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.errors import SftrlError, unknown_name

Solutions = Literal["random", "first"]
"""Which solution an expert row shows."""

_FORMULA = "\x00"


@dataclass(frozen=True)
class Source:
    """Where the hands of a file come from: one split, or a mixture of several.

    Attributes:
        splits: Split names, or one name.
        seed: Seed of the hands.
        train: Draw from the training stream; otherwise from each split's evaluation stream.
        weights: Share of each split in a mixture; equal shares if empty.
        settings: How the hands are played.
        hands: Fields of `HandSpec` to change in every split (``draw``, ``suits``, ``holdout``).
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
        if not names or (self.weights and (len(self.weights) != len(names) or min(self.weights) < 0)):
            raise SftrlError(f"expected one weight >= 0 per split, found {list(self.weights)} for {names}.")
        for key in self.hands:
            if key not in HandSpec.__dataclass_fields__:
                raise unknown_name("field of hands", key, HandSpec.__dataclass_fields__)
        splits = [get_split(name) for name in names]
        return [replace(split, hands=replace(split.hands, **self.hands)) for split in splits]


@dataclass(frozen=True)
class _Part:
    """The hands of one split in one row group, with their places in it."""

    split: Split
    hands: HandArrays
    index: np.ndarray
    choice: np.ndarray

    def __len__(self) -> int:
        return len(self.hands)


def _parts(source: Source, rows: int, first: int, count: int) -> Iterator[_Part]:
    """Draw rows ``first`` to ``first + count - 1``; ``first`` is a multiple of `BLOCK`."""
    splits = source.resolved()
    shares = np.array(source.weights or [1.0] * len(splits))
    drawn: list[list[tuple[HandArrays, np.ndarray, np.ndarray]]] = [[] for _ in splits]
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        stream = TRAIN_STREAM if source.train else "+".join(split.stream for split in splits)
        rng = stream_rng(source.seed, stream, block)
        index = np.arange(block * BLOCK, (block + 1) * BLOCK)
        which = rng.choice(len(splits), size=BLOCK, p=shares / shares.sum()) if len(splits) > 1 else np.zeros(BLOCK)
        for s, split in enumerate(splits):
            places = index[which == s]
            hands = draw_hands(rng, split.hands, len(places))
            drawn[s].append((hands, places, rng.random(len(places))))
    for split, pieces in zip(splits, drawn, strict=True):
        keep = np.concatenate([places for _, places, _ in pieces]) < min(first + count, rows)
        yield _Part(
            split,
            HandArrays(
                split.hands,
                np.concatenate([hands.ranks for hands, _, _ in pieces])[keep],
                np.concatenate([hands.suits for hands, _, _ in pieces])[keep],
            ),
            np.concatenate([places for _, places, _ in pieces])[keep],
            np.concatenate([choice for _, _, choice in pieces])[keep],
        )


class _Words:
    """Texts of one split's hands, each made once per hand of ranks."""

    def __init__(self, split: Split, settings: PlaySettings) -> None:
        spec = split.hands
        self.rule = RULES[spec.rule]
        self.target = spec.target
        self.template = load_template(settings.template)
        self.letters = suits_of(spec.suits)
        self.names = [[rank + suit for suit in self.letters] for rank in self.rule.ranks]
        whole = facts_text(make_facts([], spec.rule, spec.target, settings))
        self.facts_head = whole[: -len("]}")] + '"'
        self.max_attempts = settings.max_attempts
        self.opening: Callable[[tuple[int, ...]], tuple[str, ...]] = lru_cache(1 << 16)(self._opening)
        self.expert: Callable[[tuple[int, ...]], tuple[list[str], str]] = lru_cache(1 << 16)(self._expert)
        self.roles = [message["role"] for message in self._messages((0,) * spec.num_cards)]

    def cards(self, ranks: Sequence[int]) -> list[Card]:
        """Cards without suits."""
        return [Card(self.rule.ranks[r]) for r in ranks]

    def _messages(self, ranks: tuple[int, ...]) -> list[dict[str, str]]:
        return self.template.opening(self.cards(ranks), self.rule, self.target, self.max_attempts)

    def _opening(self, ranks: tuple[int, ...]) -> tuple[str, ...]:
        return tuple([message["content"] for message in self._messages(ranks)])

    def _expert(self, ranks: tuple[int, ...]) -> tuple[list[str], str]:
        """Solutions of a hand, and its answer with a mark where the formula goes."""
        cards = self.cards(ranks)
        numbers = self.rule.numbers(cards)
        answer = expert_answer(self.template, cards, numbers, _FORMULA, self.target)
        return solutions_of(tuple(sorted(numbers)), self.target), answer

    def facts(self, ranks: list[int], suits: list[int]) -> str:
        """The same text as `facts_text` of `make_facts` gives."""
        names = self.names
        return self.facts_head + '", "'.join([names[r][s] for r, s in zip(ranks, suits, strict=True)]) + '"]}'


@lru_cache(maxsize=1 << 15)
def solutions_of(numbers: tuple[int, ...], target: int) -> list[str]:
    """Solutions of sorted numbers, solved once."""
    return solve(numbers, target)


def _column_of_facts(words: _Words, hands: HandArrays) -> pa.Array:
    pairs = zip(hands.ranks.tolist(), hands.suits.tolist(), strict=True)
    return pa.array([words.facts(ranks, suits) for ranks, suits in pairs], pa.string())


def _build(
    source: Source, rows: int, table_of: Callable[[_Words, _Part], pa.Table], group: int = ROW_GROUP
) -> Iterator[pa.Table]:
    """Make row groups; ``table_of`` makes the rows of one split in one group."""
    if rows < 0:
        raise SftrlError(f"rows is {rows}, expected 0 or more.")
    words = [_Words(split, source.settings) for split in source.resolved()]
    for first in range(0, rows, group):
        count = min(group, rows - first)
        parts = list(_parts(source, rows, first, count))
        tables = [table_of(w, part) for w, part in zip(words, parts, strict=True) if len(part)]
        whole = pa.concat_tables(tables)
        if len(tables) > 1:
            places = np.concatenate([part.index for part in parts])
            whole = whole.take(pa.array(np.argsort(places)))
        yield whole.combine_chunks()


def rl_rows(source: Source, rows: int) -> Iterator[pa.Table]:
    """Prompts with the facts to play them: what RL trains on and what evaluation reads.

    Args:
        source: Where the hands come from.
        rows: How many.
    """

    def table_of(words: _Words, part: _Part) -> pa.Table:
        openings = [words.opening(key) for key in map(tuple, part.hands.ranks.tolist())]
        prompt = messages_array(words.roles, [pa.array(texts, pa.string()) for texts in zip(*openings, strict=True)])
        return rows_table(
            data_source=part.split.data_source,
            split=part.split.name,
            seed=source.seed,
            index=pa.array(part.index),
            facts=_column_of_facts(words, part.hands),
            prompt=prompt,
        )

    return _build(source, rows, table_of)


def sft_rows(source: Source, rows: int, solutions: Solutions = "random") -> Iterator[pa.Table]:
    """Prompts with a right answer at the first attempt.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: "random" picks a solution per row from the seed, "first" the first that `solve` gives.

    Raises:
        SftrlError: if ``solutions`` is neither.
    """
    if solutions not in get_args(Solutions):
        raise unknown_name("choice of solutions", solutions, get_args(Solutions))

    def table_of(words: _Words, part: _Part) -> pa.Table:
        keys = list(map(tuple, part.hands.ranks.tolist()))
        openings = [words.opening(key) for key in keys]
        answers = []
        for key, u in zip(keys, part.choice.tolist(), strict=True):
            formulas, answer = words.expert(key)
            formula = formulas[int(u * len(formulas)) if solutions == "random" else 0]
            answers.append(answer.replace(_FORMULA, formula))
        contents = [pa.array(texts, pa.string()) for texts in zip(*openings, strict=True)]
        turn = len(words.roles)
        return rows_table(
            data_source=part.split.data_source,
            split=part.split.name,
            seed=source.seed,
            index=pa.array(part.index),
            facts=_column_of_facts(words, part.hands),
            prompt=messages_array(words.roles, contents),
            messages=messages_array([*words.roles, "assistant"], [*contents, pa.array(answers, pa.string())]),
            train_turns=pa.repeat(pa.scalar([turn], pa.list_(pa.int64())), len(part)),
        )

    return _build(source, rows, table_of)
