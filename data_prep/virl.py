"""Rows of routes: RL prompts, expert answers at every point, and tries that failed before the right answer.

Each builder is a generator of tables, a row group at a time, for `data_prep.writer.write_rows`. A longer file
starts with the same rows as a shorter one. Every text comes from the `NavigationEpisode` that is played in
training and evaluation, and every answer that carries loss has been graded by it.

An RL row is a route: its prompt is that at the start. An SFT row is a point of a route: its prompt is what a
model sees there with everything before done right, and its facts say at which point the episode begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from data_prep.images import Images, check_images, embed_images
from data_prep.schema import rows_table
from data_prep.task_rows import dialogues
from data_prep.virl_sources import RouteSource, Walk, walks
from data_prep.wrong_turns import wrong_answers
from sftrl_ext.envs.base import Message, facts_text
from sftrl_ext.envs.virl.episode import NavigationEpisode, make_facts
from sftrl_ext.envs.virl.task import VIRL
from sftrl_ext.errors import SftrlError

GROUP = 1024
"""Rows that are built and written together; a row with its facts is some kilobytes."""


@dataclass(frozen=True)
class _Row:
    """One row before it is part of a table."""

    split: str
    data_source: str
    facts: str
    prompt: list[Message]
    messages: list[Message]


Rows = Callable[[Walk], Iterator[_Row]]
"""Makes the rows of one walk."""


def route_rl_rows(source: RouteSource, rows: int, *, images: Images = "draw") -> Iterator[pa.Table]:
    """Prompts at the start of routes, with the facts to walk them: what RL trains on and evaluation reads.

    Args:
        source: Where the walks come from.
        rows: How many; more than there are routes give them again with other rails.
        images: "embed" adds the pictures at the starts to the rows.

    Raises:
        SftrlError: if ``images`` is unknown, or "embed" for text; if a split has no routes.
    """

    def rows_of(walk: Walk) -> Iterator[_Row]:
        facts = make_facts(walk.track, walk.settings, walk.rail_seed)
        yield _row(walk, facts_text(facts), NavigationEpisode(facts).messages(), [])

    return _build(source, rows, rows_of, images)


def route_sft_rows(source: RouteSource, rows: int, *, images: Images = "draw") -> Iterator[pa.Table]:
    """Prompts with a right answer: every point of a route, then those of the next one.

    Args:
        source: Where the walks come from.
        rows: How many points.
        images: "embed" adds the pictures of the points to the rows.

    Raises:
        SftrlError: as in `route_rl_rows`, or if the grader does not accept the template's answers.
    """
    return _build(source, rows, _points((0, 0)), images)


def route_suboptimal_rows(
    source: RouteSource, rows: int, mistakes: tuple[int, int] | None = None, *, images: Images = "draw"
) -> Iterator[pa.Table]:
    """Dialogues at points that fail, get feedback, and end right; only the last answer carries loss.

    Args:
        source: Where the walks come from.
        rows: How many points.
        mistakes: Fewest and most failed tries, drawn uniformly; by default 1 to ``max_attempts - 1``.
        images: As in `route_sft_rows`.

    Raises:
        SftrlError: as in `route_sft_rows`, or if so many mistakes leave no attempt for the right answer.
    """
    limit = source.settings.max_attempts - 1
    fewest, most = mistakes or (1, limit)
    if not 0 <= fewest <= most <= limit:
        raise SftrlError(
            f"mistakes is {(fewest, most)}, expected 0 <= fewest <= most <= {limit} "
            f"(max_attempts is {limit + 1})."
        )
    return _build(source, rows, _points((fewest, most)), images)


def _points(mistakes: tuple[int, int]) -> Rows:
    """The rows of all points of a walk, with so many failed tries, fewest and most."""

    def rows_of(walk: Walk) -> Iterator[_Row]:
        episode = NavigationEpisode(make_facts(walk.track, walk.settings, walk.rail_seed))
        # The facts of a walk's points differ only in ``first_point``, which goes before the closing brace.
        head, _, _ = facts_text(episode.facts).rpartition("}")
        rng = np.random.default_rng(walk.chance)
        while not episode.done:
            begin = f', "first_point": {episode.position}' if episode.position else ""
            prompt = episode.messages()
            wanted = int(rng.integers(mistakes[0], mistakes[1] + 1)) if mistakes[1] else 0
            for answer in wrong_answers(episode, rng, wanted) if wanted else ():
                if episode.grade(answer).correct:
                    continue
                episode.submit(answer)
            answer = episode.expert_answer()
            messages = [*episode.messages(), {"role": "assistant", "content": answer}]
            step = episode.submit(answer)
            if not step.attempt.verdict.correct:
                raise SftrlError(
                    f"template {walk.settings.template!r}: its own answer {answer[:120]!r} is graded "
                    f"{step.attempt.verdict.outcome!r}; expected an answer that the grader reads."
                )
            yield _row(walk, f"{head}{begin}}}", prompt, messages)

    return rows_of


def _row(walk: Walk, facts: str, prompt: list[Message], messages: list[Message]) -> _Row:
    source = walk.split.data_source(walk.settings.modality)
    return _Row(walk.split.name, source, facts, prompt, messages)


def _build(source: RouteSource, rows: int, rows_of: Rows, images: str) -> Iterator[pa.Table]:
    check_images(images, source.settings.modality)
    if rows < 0:
        raise SftrlError(f"rows is {rows}, expected 0 or more.")
    tables = _tables(source, rows, rows_of)
    return embed_images(tables) if images == "embed" else tables


def _tables(source: RouteSource, rows: int, rows_of: Rows) -> Iterator[pa.Table]:
    all_rows = islice((row for walk in walks(source) for row in rows_of(walk)), rows)
    first = 0
    while group := list(islice(all_rows, GROUP)):
        table = _table(group, first, source.seed)
        first += len(group)
        del group  # not in memory beside the next one
        yield table


def _table(group: list[_Row], first: int, seed: int) -> pa.Table:
    """A row group; runs of rows of one split share their constants."""
    tables = []
    start = 0
    for end in range(1, len(group) + 1):
        if end < len(group) and group[end].split == group[start].split:
            continue
        part = group[start:end]
        answered = bool(part[0].messages)
        turns = [[len(row.messages) - 1] for row in part]
        tables.append(
            rows_table(
                data_source=part[0].data_source,
                split=part[0].split,
                seed=seed,
                index=pa.array(range(first + start, first + end), pa.int64()),
                facts=pa.array([row.facts for row in part], pa.string()),
                prompt=dialogues([row.prompt for row in part]),
                messages=dialogues([row.messages for row in part]) if answered else None,
                train_turns=pa.array(turns, pa.list_(pa.int64())) if answered else None,
                ability=VIRL.ability,
            )
        )
        start = end
    return pa.concat_tables(tables).combine_chunks()
