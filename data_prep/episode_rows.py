"""Rows of a task of yours, made by playing its episodes: for tasks without builders of their own."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from data_prep.images import check_images, embed_images
from data_prep.schema import rows_table
from data_prep.task_card import EpisodeCard
from data_prep.task_rows import Splits, Tables, TaskRows, dialogues
from sftrl_ext.envs.base import Message, facts_text
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError, unknown_name

Answer = Callable[[Mapping[str, Any]], str]
"""Maps the facts of an episode to a right response."""

GROUP = 1024
"""Rows that are built and written together."""


@dataclass(frozen=True)
class EpisodeSource:
    """Source of the episodes of a file.

    Attributes:
        splits: Splits that take turns.
        seed: Seed of the draws.
        train: Draw from the training streams; otherwise from those of the evaluation.
        attempts: Attempts of an episode.
    """

    splits: Sequence[str]
    seed: int
    train: bool
    attempts: int


class EpisodeRows(TaskRows):
    """Rows of episodes whose facts a subclass draws; row ``i`` depends on source and ``i`` alone.

    A subclass names its ``splits`` and defines `draw`, `answer` and `mistake`. An answer that the
    episode does not grade as correct, or a mistake that it does, is an error when rows are built.
    """

    splits: ClassVar[Sequence[str]] = ("id",)

    def __init__(self, config: TaskConfig, folder: Path, pretrain: bool = False) -> None:
        super().__init__(config, folder, pretrain)
        self.builders = {
            "rl": self._rl,
            "sft": self._sft,
            "reasoned": self._reasoned,
            "suboptimal": self._suboptimal,
        }

    @abstractmethod
    def draw(self, split: str, train: bool, rng: np.random.Generator) -> Mapping[str, Any]:
        """Facts of one episode, without ``task`` and ``max_attempts``."""

    @abstractmethod
    def answer(self, facts: Mapping[str, Any]) -> str:
        """The right answer."""

    @abstractmethod
    def mistake(self, facts: Mapping[str, Any], rng: np.random.Generator) -> str:
        """A wrong answer, as a model might give it."""

    def worked_answer(self, facts: Mapping[str, Any]) -> str:
        """The right answer after its working, for rows of kind ``reasoned``.

        Raises:
            SftrlError: by default, as a task shows no working unless it says how.
        """
        raise SftrlError(
            f"task {self.config.kind!r} has no worked answers; expected `worked_answer` in its rows, or "
            "another kind than 'reasoned'."
        )

    @classmethod
    def split_names(cls) -> Collection[str]:
        """See `TaskRows`."""
        return cls.splits

    @classmethod
    def card(cls) -> EpisodeCard:
        """See `TaskRows`."""
        return EpisodeCard()

    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None = None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> EpisodeSource:
        """See `TaskRows`."""
        names = [splits] if isinstance(splits, str) else list(splits)
        for name in names:
            if name not in self.splits:
                raise unknown_name("split", name, self.splits)
        return EpisodeSource(names, seed, train, attempts or self.config.max_attempts)

    def _rl(self, source: EpisodeSource, rows: int, *, images: str = "draw") -> Tables:
        return self._build(source, rows, None, images)

    def _sft(self, source: EpisodeSource, rows: int, *, images: str = "draw") -> Tables:
        return self._build(source, rows, (0, 0), images)

    def _reasoned(self, source: EpisodeSource, rows: int, *, images: str = "draw") -> Tables:
        return self._build(source, rows, (0, 0), images, self.worked_answer)

    def _suboptimal(
        self,
        source: EpisodeSource,
        rows: int,
        *,
        mistakes: tuple[int, int] | None = None,
        images: str = "draw",
    ) -> Tables:
        return self._build(source, rows, mistakes or (1, source.attempts - 1), images)

    def _build(
        self,
        source: EpisodeSource,
        rows: int,
        mistakes: tuple[int, int] | None,
        images: str,
        answer: Answer | None = None,
    ) -> Tables:
        check_images(images, self.config.modality)
        tables = self._tables(source, rows, mistakes, answer or self.answer)
        return embed_images(tables) if images == "embed" else tables

    def _tables(
        self, source: EpisodeSource, rows: int, mistakes: tuple[int, int] | None, answer: Answer
    ) -> Iterator[pa.Table]:
        for first in range(0, rows, GROUP):
            indices = range(first, min(first + GROUP, rows))
            parts = [
                self._table(source, split, indices[offset :: len(source.splits)], mistakes, answer)
                for offset, split in enumerate(source.splits)
            ]
            table = pa.concat_tables([part for part in parts if part.num_rows])
            order = np.argsort(table["extra_info"].combine_chunks().field("index").to_numpy())
            yield table.take(pa.array(order))

    def _table(
        self,
        source: EpisodeSource,
        split: str,
        indices: Sequence[int],
        mistakes: tuple[int, int] | None,
        answer: Answer,
    ) -> pa.Table:
        facts, prompts, messages = [], [], []
        stream = zlib.crc32(f"{'train' if source.train else 'eval'}/{split}".encode())
        for index in indices:
            # A generator for each row: a longer file starts with the same rows, whatever they draw.
            rng = np.random.default_rng([source.seed, stream, index])
            drawn = {"task": self.config.kind, "max_attempts": source.attempts}
            drawn |= self.draw(split, source.train, rng)
            facts.append(drawn)
            prompts.append(make_episode(drawn).messages())
            messages.append([] if mistakes is None else self._dialogue(drawn, mistakes, answer, rng))
        task = TASKS[self.config.kind]
        turns = pa.array([[len(row) - 1] for row in messages], pa.list_(pa.int64()))
        return rows_table(
            data_source=f"{task.data_sources[self.config.modality]}/{split}",
            split=split,
            seed=source.seed,
            index=pa.array(indices, pa.int64()),
            facts=pa.array([facts_text(each) for each in facts], pa.string()),
            prompt=dialogues(prompts),
            messages=None if mistakes is None else dialogues(messages),
            train_turns=None if mistakes is None else turns,
            ability=task.ability,
        )

    def _dialogue(
        self,
        facts: Mapping[str, Any],
        mistakes: tuple[int, int],
        answer: Answer,
        rng: np.random.Generator,
    ) -> list[Message]:
        """The dialogue of an episode that fails a number of times and ends right."""
        episode = make_episode(facts)
        for _ in range(int(rng.integers(mistakes[0], mistakes[1] + 1))):
            self._submit(episode, self.mistake(facts, rng), correct=False)
        response, opening = answer(facts), episode.messages()
        self._submit(episode, response, correct=True)
        return [*opening, {"role": "assistant", "content": response}]

    def _submit(self, episode: Any, response: str, *, correct: bool) -> None:
        verdict = episode.submit(response).attempt.verdict
        if verdict.correct != correct:
            raise SftrlError(
                f"task {self.config.kind!r}: {response[:120]!r} is graded {verdict.outcome!r}; expected "
                f"{'a right' if correct else 'a wrong'} answer."
            )
