"""Table of one task in the dataset card, filled row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa


class TaskCard(ABC):
    """Statistics of one task's rows in a file, as a line of that task's table.

    Attributes:
        intro: Lines above the table.
        heads: Heads of the columns for the rules and for how instances are shown.
        columns: Heads of further columns; one that ends in ``:`` is of numbers.
        shared: What two files may share, in the plural.
        rules: Rows per rule.
        shown: Rows per way of showing an instance.
    """

    intro: ClassVar[Sequence[str]]
    heads: ClassVar[tuple[str, str]]
    columns: ClassVar[Sequence[str]]
    shared: ClassVar[str]

    def __init__(self) -> None:
        self.rules: Counter[str] = Counter()
        self.shown: Counter[str] = Counter()

    def read_schema(self, schema: pa.Schema, path: Path) -> None:  # noqa: B027
        """Read what the file says of itself; nothing by default."""

    @abstractmethod
    def add(self, facts: Mapping[str, Any]) -> None:
        """Count the facts of one row."""

    @abstractmethod
    def cells(self) -> Sequence[str]:
        """The values of `columns`."""

    @abstractmethod
    def instances(self) -> Set[Any]:
        """Instances to compare with those of other files."""

    @classmethod
    def further_lines(cls, cards: Sequence[Any]) -> list[str]:
        """Lines between the table and the overlap; none by default."""
        return []


class EpisodeCard(TaskCard):
    """The table of a task without one of its own: an instance is its facts."""

    intro = ("Made by `data_prep`. An *instance* is the facts of an episode.",)
    heads = ("task", "shown as")
    columns = ("instances:",)
    shared = "Instances"

    def __init__(self) -> None:
        super().__init__()
        self.facts: set[str] = set()

    def add(self, facts: Mapping[str, Any]) -> None:
        """See `TaskCard`."""
        self.rules[str(facts["task"])] += 1
        self.shown[str(facts.get("modality", "text"))] += 1
        self.facts.add(repr(sorted(facts.items())))

    def cells(self) -> Sequence[str]:
        """See `TaskCard`."""
        return (f"{len(self.facts):,}",)

    def instances(self) -> Set[Any]:
        """See `TaskCard`."""
        return self.facts
