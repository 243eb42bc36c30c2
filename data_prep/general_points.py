"""Rows of the card game: RL prompts, expert answers, and dialogues with failed attempts in them.

Each builder is a generator of tables, a row group at a time, for `data_prep.writer.write_rows`. A longer file
starts with the same rows as a shorter one. Hands are drawn with numpy, columns are made with Arrow, and every
text comes from the `PromptTemplate` and the verifier that the episode uses.

A row whose cards are shown as an image holds a marker in its prompt, and the facts to draw the picture from;
``images="embed"`` adds the picture itself in the column ``images``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from data_prep.images import Images, check_images, embed_images
from data_prep.mistakes import spoiled
from data_prep.schema import dialogues_array, messages_array, rows_table
from data_prep.sources import Accept, Part, Source, draw_parts, image_seeds, runs_of_rows
from data_prep.splits import Split
from data_prep.writer import ROW_GROUP
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.cards import Card, parse_cards, suits_of
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, make_facts
from sftrl_ext.envs.general_points.hands import HandArrays
from sftrl_ext.envs.general_points.prompts import expert_answer, load_template
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.errors import SftrlError, unknown_name

Solutions = Literal["random", "first"]
"""Which solution an expert row shows."""

_FORMULA = "\x00"
_POOL = 8
_Key = tuple[int, ...]
"""Indices of a hand's ranks, followed by those of its suits where a text shows suits."""


class _Words:
    """Texts of one split's hands, each made once per key."""

    def __init__(self, split: Split, source: Source) -> None:
        settings = split.settings(source.settings)
        spec = split.hands
        self.seed = source.seed
        self.settings = settings
        self.rule = RULES[spec.rule]
        self.target = spec.target
        self.template = load_template(settings.template)
        self._letters = suits_of(spec.suits)
        self._names = [[rank + suit for suit in self._letters] for rank in self.rule.ranks]
        self._num_cards = spec.num_cards
        self._shows_suits = "symbol" in self.template.texts["card"].template
        self.image = settings.modality == "image"
        self.data_source = split.data_source(settings.modality)
        head, _, _ = facts_text(make_facts([], spec.rule, spec.target, settings)).rpartition('"cards": [')
        self._facts_head = head + '"cards": ["'
        self.opening: Callable[[_Key], tuple[str, ...]] = lru_cache(1 << 16)(self._opening)
        self.expert: Callable[[_Key], tuple[Sequence[str], str]] = lru_cache(1 << 16)(self._expert)
        self.mistakes: Callable[[_Key], list[tuple[str, str]]] = lru_cache(1 << 15)(self._mistakes)
        self.reply: Callable[[str, int], str] = lru_cache(1 << 12)(self._reply)
        self.roles = [message["role"] for message in self._messages((0,) * spec.num_cards)]

    def keys(self, hands: HandArrays) -> list[_Key]:
        """What the texts of some hands depend on."""
        columns = [hands.ranks, hands.suits] if self._shows_suits else [hands.ranks]
        return list(map(tuple, np.hstack(columns).tolist()))

    def cards(self, key: _Key) -> list[Card]:
        """The cards of a key; where it has no suits no text shows them, and any suit will do."""
        ranks, suits = key[: self._num_cards], key[self._num_cards :] or (0,) * self._num_cards
        return [Card(self.rule.ranks[r], self._letters[s]) for r, s in zip(ranks, suits, strict=True)]

    def facts(self, part: Part) -> list[str]:
        """The same texts as `facts_text` of `make_facts`, made faster."""
        head, names = self._facts_head, self._names
        hands = [
            head + '", "'.join([names[r][s] for r, s in zip(ranks, suits, strict=True)])
            for ranks, suits in zip(part.hands.ranks.tolist(), part.hands.suits.tolist(), strict=True)
        ]
        if not self.image:
            return [f'{hand}"]}}' for hand in hands]
        seeds = image_seeds(self.seed, part.index).tolist()
        return [f'{hand}"], "image_seed": {seed}}}' for hand, seed in zip(hands, seeds, strict=True)]

    def answer(self, key: _Key, chance: float, solutions: str) -> str:
        """An expert's answer; ``chance`` in [0, 1) chooses the solution."""
        formulas, text = self.expert(key)
        return text.replace(_FORMULA, formulas[int(chance * len(formulas)) if solutions == "random" else 0])

    def _messages(self, key: _Key) -> list[dict[str, str]]:
        play = self.settings
        return self.template.opening(
            self.cards(key), self.rule, self.target, play.max_attempts, play.modality
        )

    def _opening(self, key: _Key) -> tuple[str, ...]:
        return tuple([message["content"] for message in self._messages(key)])

    def _expert(self, key: _Key) -> tuple[Sequence[str], str]:
        """Solutions of a hand, and its answer with a mark where the formula goes."""
        cards = self.cards(key)
        numbers = self.rule.numbers(cards)
        text = expert_answer(self.template, cards, numbers, _FORMULA, self.target)
        return solutions_of(tuple(sorted(numbers)), self.target, self.settings.profile), text

    def _mistakes(self, key: _Key) -> list[tuple[str, str]]:
        """Wrong answers of a hand, all different, each with the feedback it gets."""
        cards = self.cards(key)
        numbers = tuple(sorted(self.rule.numbers(cards)))
        pool = wrong_formulas(numbers, self.target, self.seed)
        episode = GeneralPointsEpisode(make_facts(cards, self.rule.name, self.target, self.settings))
        text = self.expert(key)[1]
        found: list[tuple[str, str]] = []
        start = sum(part * 31**place for place, part in enumerate(key))
        for i in range(len(pool)):
            answer = text.replace(_FORMULA, pool[(start + i) % len(pool)])
            verdict = episode.grade(answer)
            if not verdict.correct:
                found.append((answer, verdict.feedback))
            if len(found) == _POOL:
                break
        return found

    def _reply(self, feedback: str, attempt: int) -> str:
        return self.template.reply(feedback, attempt, self.settings.max_attempts, self.target)


@lru_cache(maxsize=1 << 15)
def solutions_of(numbers: tuple[int, ...], target: int, profile: str = "exact") -> Sequence[str]:
    """Solutions of sorted numbers, solved once; under ``authors`` only those that grader accepts."""
    solutions = solve(numbers, target)
    if profile == "exact":
        return solutions

    def accepted(formula: str) -> bool:
        answer = json.dumps({"formula": f"{formula}={target}"})
        return grade_response(answer, cards=(), numbers=numbers, target=target, profile=profile).correct

    return [formula for formula in solutions if accepted(formula)]


@lru_cache(maxsize=1 << 15)
def wrong_formulas(numbers: tuple[int, ...], target: int, seed: int) -> list[str]:
    """Different formulas for sorted numbers, most of them wrong, a pure function of the arguments."""
    rng = np.random.default_rng([seed, target, *numbers])
    return list(dict.fromkeys(spoiled(rng, solutions_of(numbers, target), numbers, tries=8 * _POOL)))


def _build(
    source: Source,
    rows: int,
    table_of: Callable[[_Words, Part], pa.Table],
    images: str,
    accept: Accept | None = None,
) -> Iterator[pa.Table]:
    check_images(images, source.settings.modality)
    tables = _tables(source, rows, table_of, accept)
    return embed_images(tables) if images == "embed" else tables


def _tables(
    source: Source, rows: int, table_of: Callable[[_Words, Part], pa.Table], accept: Accept | None
) -> Iterator[pa.Table]:
    """Make row groups; ``table_of`` makes the rows of one split in one group."""
    words = [_Words(split, source) for split in source.resolved()]
    for first, last in runs_of_rows(rows, ROW_GROUP):
        parts = draw_parts(source, first, last, accept)
        tables = [table_of(w, part) for w, part in zip(words, parts, strict=True) if len(part)]
        whole = pa.concat_tables(tables)
        if len(tables) > 1:
            places = np.concatenate([part.index for part in parts])
            whole = whole.take(pa.array(np.argsort(places)))
        yield whole


def _table(
    words: _Words,
    part: Part,
    prompt: pa.Array,
    messages: pa.Array | None = None,
    turns: pa.Array | None = None,
) -> pa.Table:
    return rows_table(
        data_source=words.data_source,
        split=part.split.name,
        seed=words.seed,
        index=pa.array(part.index),
        facts=pa.array(words.facts(part), pa.string()),
        prompt=prompt,
        messages=messages,
        train_turns=turns,
    )


def _opening_columns(words: _Words, keys: list[_Key]) -> list[pa.Array]:
    openings = [words.opening(key) for key in keys]
    return [pa.array(texts, pa.string()) for texts in zip(*openings, strict=True)]


def rl_rows(source: Source, rows: int, *, images: Images = "draw") -> Iterator[pa.Table]:
    """Prompts with the facts to play them: what RL trains on and what evaluation reads.

    Args:
        source: Where the hands come from.
        rows: How many.
        images: "embed" adds the pictures to the rows.

    Raises:
        SftrlError: if ``images`` is unknown, or "embed" for cards as text.
    """

    def table_of(words: _Words, part: Part) -> pa.Table:
        return _table(
            words, part, messages_array(words.roles, _opening_columns(words, words.keys(part.hands)))
        )

    return _build(source, rows, table_of, images)


def sft_rows(
    source: Source, rows: int, solutions: Solutions = "random", *, images: Images = "draw"
) -> Iterator[pa.Table]:
    """Prompts with a right answer at the first attempt.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: "random" chooses a solution per row by the seed, "first" takes the first of `solve`.
        images: As in `rl_rows`.

    Raises:
        SftrlError: if ``solutions`` is neither, or the grader cannot read the template's answers.
    """
    _check_answers(source, solutions)

    def table_of(words: _Words, part: Part) -> pa.Table:
        keys = words.keys(part.hands)
        answers = [
            words.answer(k, u, solutions) for k, u in zip(keys, part.chance[:, 0].tolist(), strict=True)
        ]
        contents = _opening_columns(words, keys)
        return _table(
            words,
            part,
            messages_array(words.roles, contents),
            messages_array([*words.roles, "assistant"], [*contents, pa.array(answers, pa.string())]),
            pa.repeat(pa.scalar([len(words.roles)], pa.list_(pa.int64())), len(part)),
        )

    return _build(source, rows, table_of, images, _answerable(source))


def suboptimal_rows(
    source: Source,
    rows: int,
    solutions: Solutions = "random",
    mistakes: tuple[int, int] | None = None,
    *,
    images: Images = "draw",
) -> Iterator[pa.Table]:
    """Dialogues that fail, get feedback, and end right; only the last answer carries loss.

    The failed answers are solutions with a change in them, and the feedback is the verifier's.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: As in `sft_rows`.
        mistakes: Fewest and most failed attempts, drawn uniformly; by default 1 to ``max_attempts - 1``,
            at most 8.
        images: As in `rl_rows`.

    Raises:
        SftrlError: as in `sft_rows`, or if so many mistakes leave no attempt for the right answer.
    """
    _check_answers(source, solutions)
    limit = source.settings.max_attempts - 1
    fewest, most = mistakes or (1, min(limit, _POOL))
    if not 0 <= fewest <= most <= min(limit, _POOL):
        raise SftrlError(
            f"mistakes is {(fewest, most)}, expected 0 <= fewest <= most <= {min(limit, _POOL)} "
            f"(max_attempts is {limit + 1})."
        )

    def dialogue(words: _Words, key: _Key, pick: float, how: float) -> list[str]:
        texts = list(words.opening(key))
        pool = words.mistakes(key)
        size = max(1, len(pool))
        number, place = divmod(int(how * (most - fewest + 1) * size), size)
        for attempt in range(1, min(fewest + number, len(pool)) + 1):
            answer, feedback = pool[(place + attempt) % len(pool)]
            texts += (answer, words.reply(feedback, attempt))
        texts.append(words.answer(key, pick, solutions))
        return texts

    def table_of(words: _Words, part: Part) -> pa.Table:
        keys = words.keys(part.hands)
        chance = part.chance.tolist()
        texts = [dialogue(words, key, pick, how) for key, (pick, how) in zip(keys, chance, strict=True)]
        head = words.roles
        roles = [
            [*head, *["assistant", "user"] * ((len(t) - len(head) - 1) // 2), "assistant"] for t in texts
        ]
        return _table(
            words,
            part,
            messages_array(head, _opening_columns(words, keys)),
            dialogues_array(roles, texts),
            pa.array([[len(t) - 1] for t in texts], pa.list_(pa.int64())),
        )

    return _build(source, rows, table_of, images, _answerable(source))


def _answerable(source: Source) -> Accept | None:
    """The condition that the grader accepts a solution; every solvable hand fulfils it under ``exact``."""
    profile = source.settings.profile
    return (
        None if profile == "exact" else lambda numbers, target: bool(solutions_of(numbers, target, profile))
    )


def _check_answers(source: Source, solutions: str) -> None:
    """Refuse an unknown choice of solutions, and a template whose answers name no cards the grader reads."""
    if solutions not in get_args(Solutions):
        raise unknown_name("choice of solutions", solutions, get_args(Solutions))
    play = source.settings
    cards, numbers = parse_cards(["K", "5", "2", "4"]), (10, 5, 2, 4)
    answer = expert_answer(load_template(play.template), cards, numbers, "10+5*2+4")
    verdict = grade_response(
        answer, cards="K524", numbers=numbers, profile=play.profile, modality=play.modality
    )
    if verdict.outcome == "cards_not_recognized":
        raise SftrlError(
            f"template {play.template!r}: profile {play.profile!r} does not read the cards in its answers, "
            "which counts with images. Expected answer_card: \"'$rank'\", as in the template 'single_quotes'."
        )
