"""Rows of the card game: RL prompts, expert answers, and dialogues with failed attempts in them.

Each builder is a generator of tables, a row group at a time, for `data_prep.writer.write_rows`. A longer file
starts with the same rows as a shorter one. Hands are drawn with numpy, columns are made with Arrow, and every
text comes from the `PromptTemplate` and the verifier that the episode uses.

A row whose cards are shown as an image holds a marker in its prompt, and the facts to draw the picture from;
``images="embed"`` adds the picture itself in the column ``images``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from data_prep.hand_draws import with_draws
from data_prep.hand_words import POOL, HandWords, Key, solutions_of
from data_prep.images import Images, check_images, embed_images
from data_prep.schema import dialogues_array, messages_array, rows_table
from data_prep.sources import Part, Source, draw_parts, runs_of_rows
from data_prep.writer import ROW_GROUP
from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.hands import Accept
from sftrl_ext.envs.general_points.prompts import expert_answer, load_template
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.envs.general_points.working import calculations
from sftrl_ext.errors import SftrlError, unknown_name

Solutions = Literal["random", "first", "last"]
"""Which solution an expert row shows."""


def _build(
    source: Source,
    rows: int,
    table_of: Callable[[HandWords, Part], pa.Table],
    images: str,
    accept: Accept | None = None,
) -> Iterator[pa.Table]:
    check_images(images, source.settings.modality)
    tables = _tables(source, rows, table_of, accept)
    return embed_images(tables) if images == "embed" else tables


def _tables(
    source: Source, rows: int, table_of: Callable[[HandWords, Part], pa.Table], accept: Accept | None
) -> Iterator[pa.Table]:
    """Make row groups; ``table_of`` makes the rows of one split in one group."""
    texts = [HandWords(split, source) for split in source.resolved()]
    for first, last in runs_of_rows(rows, ROW_GROUP):
        parts = draw_parts(source, first, last, accept)
        tables = [table_of(text, part) for text, part in zip(texts, parts, strict=True) if len(part)]
        table = pa.concat_tables(tables)
        if len(tables) > 1:
            indices = np.concatenate([part.index for part in parts])
            # The rows of a mixture came split by split; their numbers put them back into the order of the
            # stream.
            table = table.take(pa.array(np.argsort(indices)))
        yield with_draws(table, [text.split for text in texts])


def _table(
    texts: HandWords,
    part: Part,
    prompt: pa.Array,
    messages: pa.Array | None = None,
    turns: pa.Array | None = None,
) -> pa.Table:
    return rows_table(
        data_source=texts.data_source,
        split=part.split.name,
        seed=texts.seed,
        index=pa.array(part.index),
        facts=pa.array(texts.facts(part), pa.string()),
        prompt=prompt,
        messages=messages,
        train_turns=turns,
    )


def _opening_columns(hand_texts: HandWords, keys: list[Key]) -> list[pa.Array]:
    openings = [hand_texts.opening(key) for key in keys]
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

    def table_of(hand_texts: HandWords, part: Part) -> pa.Table:
        return _table(
            hand_texts,
            part,
            messages_array(hand_texts.roles, _opening_columns(hand_texts, hand_texts.keys(part.hands))),
        )

    return _build(source, rows, table_of, images)


def sft_rows(
    source: Source, rows: int, solutions: Solutions = "random", *, images: Images = "draw"
) -> Iterator[pa.Table]:
    """Prompts with a right answer at the first attempt.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: "random" chooses a solution per row by the seed, "first" and "last" take that of `solve`.
        images: As in `rl_rows`.

    Raises:
        SftrlError: if ``solutions`` is none of them, or the grader cannot read the template's answers.
    """
    return _answered(source, rows, solutions, images, reasoned=False)


def reasoned_rows(
    source: Source, rows: int, solutions: Solutions = "random", *, images: Images = "draw"
) -> Iterator[pa.Table]:
    """The rows of `sft_rows`, hand by hand and solution by solution, whose answers show their working.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: As in `sft_rows`.
        images: As in `rl_rows`.

    Raises:
        SftrlError: as in `sft_rows`, or if the template has no place for the working.
    """
    return _answered(source, rows, solutions, images, reasoned=True)


def _answered(source: Source, rows: int, solutions: str, images: str, reasoned: bool) -> Iterator[pa.Table]:
    """Prompts with a right answer at the first attempt."""
    _check_answers(source, solutions, reasoned)

    def table_of(hand_texts: HandWords, part: Part) -> pa.Table:
        keys = hand_texts.keys(part.hands)
        chances = part.chance[:, 0].tolist()
        answers = [hand_texts.answer(k, u, solutions, reasoned) for k, u in zip(keys, chances, strict=True)]
        contents = _opening_columns(hand_texts, keys)
        return _table(
            hand_texts,
            part,
            messages_array(hand_texts.roles, contents),
            messages_array([*hand_texts.roles, "assistant"], [*contents, pa.array(answers, pa.string())]),
            pa.repeat(pa.scalar([len(hand_texts.roles)], pa.list_(pa.int64())), len(part)),
        )

    return _build(source, rows, table_of, images, _answerable(source))


def suboptimal_rows(
    source: Source,
    rows: int,
    solutions: Solutions = "random",
    mistakes: tuple[int, int] | None = None,
    *,
    images: Images = "draw",
    reasoned: bool = False,
) -> Iterator[pa.Table]:
    """Dialogues that fail, get feedback, and end right; only the last answer carries loss.

    The failed answers are solutions with a change in them, and the feedback is the verifier's.
    ``train_turns`` says which answer carries loss; verl's own SFT data set does not read it and trains the
    failed ones too.

    Args:
        source: Where the hands come from.
        rows: How many.
        solutions: As in `sft_rows`.
        mistakes: Fewest and most failed attempts, drawn uniformly; by default 1 to ``max_attempts - 1``,
            at most 8.
        images: As in `rl_rows`.
        reasoned: Answers show their working, failed ones too where their formula has one.

    Raises:
        SftrlError: as in `sft_rows`, or if so many mistakes leave no attempt for the right answer.
    """
    _check_answers(source, solutions, reasoned)
    limit = source.settings.max_attempts - 1
    fewest, most = mistakes or (1, min(limit, POOL))
    if not 0 <= fewest <= most <= min(limit, POOL):
        raise SftrlError(
            f"mistakes is {(fewest, most)}, expected 0 <= fewest <= most <= {min(limit, POOL)} "
            f"(max_attempts is {limit + 1})."
        )

    def dialogue(hand_texts: HandWords, key: Key, pick: float, draw: float) -> list[str]:
        texts = list(hand_texts.opening(key))
        _, target = hand_texts.rule_and_target(key)
        pool = hand_texts.mistakes(key, reasoned)
        size = max(1, len(pool))
        # One random number chooses both, uniformly: how many attempts fail, and the first mistake of the
        # pool. The others follow it in the pool, so no mistake comes twice.
        number, first = divmod(int(draw * (most - fewest + 1) * size), size)
        for attempt in range(1, min(fewest + number, len(pool)) + 1):
            answer, feedback = pool[(first + attempt) % len(pool)]
            texts += (answer, hand_texts.reply(feedback, attempt, target))
        texts.append(hand_texts.answer(key, pick, solutions, reasoned))
        return texts

    def table_of(hand_texts: HandWords, part: Part) -> pa.Table:
        keys = hand_texts.keys(part.hands)
        chance = part.chance.tolist()
        texts = [
            dialogue(hand_texts, key, pick, draw) for key, (pick, draw) in zip(keys, chance, strict=True)
        ]
        head = hand_texts.roles
        roles = [
            [*head, *["assistant", "user"] * ((len(t) - len(head) - 1) // 2), "assistant"] for t in texts
        ]
        return _table(
            hand_texts,
            part,
            messages_array(head, _opening_columns(hand_texts, keys)),
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


def _check_answers(source: Source, solutions: str, reasoned: bool = False) -> None:
    """Refuse an unknown choice of solutions, and a template whose answers the grader does not read.

    Raises:
        SftrlError: naming what was found and what is expected.
    """
    if solutions not in get_args(Solutions):
        raise unknown_name("choice of solutions", solutions, get_args(Solutions))
    play = source.settings
    cards, numbers, formula = parse_cards(["K", "5", "2", "4"]), (10, 5, 2, 4), "10+5*2+4"
    steps = calculations(formula) if reasoned else None
    answer = expert_answer(load_template(play.template), cards, numbers, formula, calculations=steps)
    verdict = grade_response(
        answer, cards="K524", numbers=numbers, profile=play.profile, modality=play.modality
    )
    if verdict.outcome == "cards_not_recognized":
        raise SftrlError(
            f"template {play.template!r}: profile {play.profile!r} does not read the cards in its answers, "
            "which counts with images. Expected answer_card: \"'$rank'\", as in the template 'single_quotes'."
        )
    if not verdict.correct:
        raise SftrlError(
            f"template {play.template!r}: profile {play.profile!r} grades its own answer {answer[:200]!r} "
            f"{verdict.outcome!r}; expected an answer from which the grader reads $formula."
        )
