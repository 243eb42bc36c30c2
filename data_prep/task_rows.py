"""Builders of a task's rows: the part of a `TaskSpec` that needs pyarrow."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa

from data_prep.schema import dialogues_array, rows_table
from sftrl_ext.envs.base import Message, facts_text
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError, check_known, unknown_name

if TYPE_CHECKING:
    from data_prep.held_out import HeldOutCheck
    from data_prep.options import DataOptions
    from data_prep.task_card import TaskCard

Splits = str | Sequence[str]
Tables = Iterator[pa.Table]
KINDS = ("rl", "sft", "reasoned", "suboptimal")
"""Kinds of rows."""

Builder = Callable[..., Tables]
"""Takes a source of instances, a number of rows, and ``images``; of dialogues also ``mistakes``."""


class TaskRows(ABC):
    """Builds the rows of one task, for the data stage of a run and for ``sftrl data``.

    Attributes:
        config: The settings.
        builders: Kind of rows (``rl``, ``sft``, ``reasoned``, ``suboptimal``) to its builder.
        notes: One sentence for each thing of the task's files that is left out.
        commands: Further kinds of ``sftrl data``, which make something else than rows: the name of what
            they count, and a function of the options.

    Args:
        config: The settings, of a recipe or of the options of ``sftrl data``.
        folder: Folder for files that the task makes for its rows.
        pretrain: Rows for the pre-training of a base model will be built too.
    """

    commands: ClassVar[Mapping[str, tuple[str, Callable[[DataOptions], int]]]] = {}
    notes: Sequence[str] = ()
    builders: Mapping[str, Builder]

    def __init__(self, config: TaskConfig, folder: Path, pretrain: bool = False) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def split_names(cls) -> Collection[str]:
        """Names of the task's splits."""

    @classmethod
    @abstractmethod
    def card(cls) -> TaskCard:
        """Returns an empty table of the dataset card for one file."""

    @classmethod  # noqa: B027
    def configure(cls, config: TaskConfig, options: DataOptions) -> None:
        """Put the task's own options of ``sftrl data`` into its settings.

        Raises:
            SftrlError: if one is missing or wrong.
        """

    @classmethod
    def check(cls, config: TaskConfig, splits: Mapping[str, Sequence[str]]) -> None:
        """Refuse settings with which no row can be built, before any is.

        Args:
            config: The settings of a recipe.
            splits: Key of the recipe to the splits that it names.

        Raises:
            SftrlError: naming the key.
        """
        for key, names in splits.items():
            for name in names:
                check_known(key, "split", name, cls.split_names())

    @classmethod
    def read_answer(cls, answer: str, config: TaskConfig) -> dict[str, Any]:
        """Facts of the episode that an imported answer is about; empty if they cannot be read off it."""
        return {}

    @classmethod
    def under_trained_rule(cls, facts: Mapping[str, Any], train_split: str) -> dict[str, Any] | None:
        """Facts of an episode under the trained rule; None where that is its own, or there is none."""
        return None

    @classmethod
    def sample_texts(cls, rows: int) -> list[str]:
        """Prompts, answers and feedback for the tokenizer of a toy model."""
        return []

    @abstractmethod
    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None = None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> Any:
        """Instances of some splits as they are played; ``attempts`` None is the task's number."""

    def benchmark_rows(self, split: str) -> int | None:
        """Instances of a split that is a benchmark of given size; None for splits that are drawn."""
        return None

    def given(self, path: Path, name: str, seed: int, limit: int | None = None) -> Tables:
        """Prompts of the instances that a file lists, as an evaluation split of that name.

        Raises:
            SftrlError: by default, as a task reads no such list unless it says how.
        """
        raise SftrlError(f"{path}: task {self.config.kind!r} reads no list of instances.")

    def check_held_out(self, path: Path, init: bool = False) -> HeldOutCheck | None:
        """Read a file of a stage back and refuse a row that states what ``task.held_out`` names.

        Rows that ``task.exposure`` adds are counted.

        Args:
            path: The parquet file.
            init: It is the stage ``init``, which may state the rule it trains.

        Returns:
            None where nothing is held out.

        Raises:
            SftrlError: naming file, row and what it states; by default for any ``task.held_out``.
        """
        if self.config.held_out:
            raise SftrlError(
                f"task.held_out: {', '.join(self.config.held_out)}; expected none, as task "
                f"{self.config.kind!r} has no card rules."
            )
        return None

    def build(self, kind: str, source: Any, rows: int, **options: Any) -> Tables:
        """Build rows of one kind.

        Raises:
            SftrlError: if the task has no rows of that kind.
        """
        check_working(kind, self.config.kind)
        if kind not in self.builders:
            raise unknown_name("kind of rows", kind, self.builders)
        return self.builders[kind](source, rows, **options)

    def prompts(
        self, splits: Splits, rows: int, seed: int, train: bool = True, attempts: int | None = None
    ) -> Tables:
        """Prompts that RL trains on, or with ``train`` False those of an evaluation."""
        return self.build("rl", self.source(splits, seed, attempts, train=train), rows)

    def sft(
        self, splits: Splits, rows: int, seed: int, pretraining: bool = False, attempts: int | None = None
    ) -> Tables:
        """Expert answers."""
        return self.build("sft", self.source(splits, seed, attempts, pretraining=pretraining), rows)

    def reasoned(self, splits: Splits, rows: int, seed: int, attempts: int | None = None) -> Tables:
        """Expert answers that show their working."""
        return self.build("reasoned", self.source(splits, seed, attempts), rows)

    def dialogues(
        self,
        splits: Splits,
        rows: int,
        seed: int,
        fewest: int = 0,
        pretraining: bool = True,
        attempts: int | None = None,
    ) -> Tables:
        """Expert answers after ``fewest`` up to all but one of the attempts failed."""
        source = self.source(splits, seed, attempts, pretraining=pretraining)
        most = (attempts or self.config.max_attempts) - 1
        return self.build("suboptimal", source, rows, mistakes=(fewest, most))


def find_rows(task: str) -> type[TaskRows]:
    """The class that builds the rows of a task.

    Raises:
        SftrlError: if the task is unknown, or has none.
    """
    rows = TASKS[task].rows
    if not rows:
        raise SftrlError(f"task {task!r} builds no rows; expected `rows` in its TaskSpec.")
    if isinstance(rows, str):
        module, _, name = rows.partition(":")
        rows = getattr(importlib.import_module(module), name)
    return cast("type[TaskRows]", rows)


def check_working(kind: str, task: str) -> None:
    """Refuse answers with their working for a task that has none.

    Raises:
        SftrlError: with the task's reason.
    """
    no_working = TASKS[task].no_working
    if kind == "reasoned" and no_working is not None:
        raise SftrlError(f"kind 'reasoned' is not for task {task!r}: {no_working}. Expected kind 'sft'.")


def dialogues(rows: Sequence[Sequence[Message]]) -> pa.ListArray:
    """Make a column of dialogues."""
    return dialogues_array(
        [[message["role"] for message in row] for row in rows],
        [[message["content"] for message in row] for row in rows],
    )


def prompt_table(
    task: str, data_source: str, split: str, seed: int, facts: Sequence[Mapping[str, Any]]
) -> pa.Table:
    """Rows of prompts, numbered from 0: the openings of the episodes that some facts give."""
    return rows_table(
        data_source=data_source,
        split=split,
        seed=seed,
        index=pa.array(range(len(facts)), pa.int64()),
        facts=pa.array([facts_text(each) for each in facts], pa.string()),
        prompt=dialogues([make_episode(each).messages() for each in facts]),
        ability=TASKS[task].ability,
    )
