"""Rows of Countdown: games that are drawn, or those of a published list of numbers and targets."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np

from data_prep.episode_rows import EpisodeRows
from data_prep.general_points import Solutions
from data_prep.given_files import Record, read_records, split_of_set, whole_number
from data_prep.mistakes import spoiled
from data_prep.schema import data_source
from data_prep.task_rows import Tables, prompt_table
from sftrl_ext.envs.countdown.episode import CountdownEpisode, check_instance
from sftrl_ext.envs.countdown.numbers import USES, is_solvable, solve
from sftrl_ext.envs.countdown.prompts import load_template, template_path
from sftrl_ext.envs.countdown.task import COUNTDOWN
from sftrl_ext.envs.general_points.hands import HOLDOUT, is_held_out
from sftrl_ext.envs.general_points.solver import MAX_NUMBERS
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError, check_known, named

FIELDS = ("nums", "target")
"""Columns of a published list."""

_PATIENCE = 5_000


@dataclass(frozen=True)
class CountdownSettings:
    """Keys ``task.settings`` of a recipe, and ``--settings`` of ``sftrl data``.

    The defaults are the ranges of the rows published as Countdown-Tasks-3to4.

    Attributes:
        min_numbers: Fewest numbers of a game.
        max_numbers: Most numbers of a game.
        min_value: Smallest number.
        max_value: Largest number.
        min_target: Smallest target.
        max_target: Largest target.
        use: ``all``: a formula uses every number once; ``any``: it may leave numbers out.
        file: Parquet, CSV or JSON list with the columns ``nums`` and ``target``, of which the splits ``id``
            and ``id_unseen`` are drawn; without it games are made up.
    """

    min_numbers: int = 3
    max_numbers: int = 4
    min_value: int = 1
    max_value: int = 99
    min_target: int = 10
    max_target: int = 100
    use: str = "all"
    file: str = ""

    def __post_init__(self) -> None:
        for name in ("numbers", "value", "target"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if not (type(low) is type(high) is int and 1 <= low <= high):
                raise SftrlError(
                    f"min_{name} and max_{name} are {low!r} and {high!r}, expected whole numbers from 1 on, "
                    "the smaller first."
                )
        if self.max_numbers > MAX_NUMBERS:
            raise SftrlError(f"max_numbers is {self.max_numbers}, expected at most {MAX_NUMBERS}.")
        check_known("use", "use of the numbers", self.use, USES)
        if self.file and not Path(self.file).is_file():
            raise SftrlError(
                f"file is {self.file!r}: no such file; expected a list with {', '.join(FIELDS)}."
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> CountdownSettings:
        """Settings from their keys.

        Raises:
            SftrlError: if a key is unknown or its value is wrong.
        """
        with named("task.settings"):
            for key in settings:
                check_known("keys", "key", key, [field.name for field in fields(cls)])
            return cls(**settings)


class CountdownRows(EpisodeRows):
    """Rows of Countdown.

    ``id`` and ``id_unseen`` are the two parts of the games, by numbers and target: training draws only from
    the first. ``ood_more_numbers`` has one number more than any of ``id``, ``ood_large_targets`` targets up
    to twice as large.
    """

    splits = ("id", "id_unseen", "ood_more_numbers", "ood_large_targets")

    def __init__(self, config: TaskConfig, folder: Path, pretrain: bool = False) -> None:
        super().__init__(config, folder, pretrain)
        self.settings = CountdownSettings.of(config.settings)
        self.template = load_template(template_path(config.template))
        self.notes: list[str] = []

    @classmethod
    def check(cls, config: TaskConfig, splits: Mapping[str, Sequence[str]]) -> None:
        """See `TaskRows`."""
        super().check(config, splits)
        check_known("task.solutions", "choice of solutions", config.solutions, get_args(Solutions))
        check_known("task.profile", "profile", config.profile, ("exact",))
        check_known("task.modality", "modality", config.modality, ("text",))
        with named("task"):
            make = cls(config, Path())
        named_splits = {name for names in splits.values() for name in names}
        if "ood_more_numbers" in named_splits and make.settings.max_numbers == MAX_NUMBERS:
            raise SftrlError(
                f"task.settings.max_numbers is {MAX_NUMBERS}; expected less beside split 'ood_more_numbers', "
                f"as the solver takes at most {MAX_NUMBERS} numbers."
            )

    @classmethod
    def sample_texts(cls, rows: int) -> list[str]:
        """See `TaskRows`."""
        texts = []
        for template in ("default", "compact"):
            make = cls(TaskConfig(name="", kind=COUNTDOWN.name, template=template), Path())
            for table in make.build("suboptimal", make.source("id", 0), rows):
                texts += [message["content"] for row in table.to_pylist() for message in row["messages"]]
        return texts

    def draw(self, split: str, train: bool, rng: np.random.Generator) -> Mapping[str, Any]:
        """See `EpisodeRows`."""
        listed = bool(self.settings.file) and split.startswith("id")
        if not listed:
            size = self._size(split, rng)
        for _ in range(_PATIENCE):
            numbers, target = self._listed(rng) if listed else self._made_up(split, size, rng)
            if split.startswith("id") and (
                is_held_out(tuple(sorted(numbers)), target, HOLDOUT) != (split == "id_unseen")
            ):
                continue
            if is_solvable(numbers, target, self.settings.use):
                return self._facts(numbers, target)
        raise SftrlError(
            f"split {split!r}: no game with a solution in {_PATIENCE:,} draws ({self.settings})."
        )

    def answer(self, facts: Mapping[str, Any]) -> str:
        """See `EpisodeRows`; ``task.solutions`` says which of the solutions."""
        formulas = solve(facts["numbers"], facts["target"], self.settings.use)
        # Drawn by the game itself: one that comes twice has the same answer in training and in a check of it.
        pick = zlib.crc32(repr((facts["numbers"], facts["target"])).encode())
        chosen = formulas[pick % len(formulas) if self.config.solutions == "random" else 0]
        return self.template.answer(chosen, facts["target"])

    def mistake(self, facts: Mapping[str, Any], rng: np.random.Generator) -> str:
        """See `EpisodeRows`; a solution with a change in it."""
        numbers, target = facts["numbers"], facts["target"]
        formulas = [text for text in solve(numbers, target, self.settings.use) if not text.isdigit()]
        episode = CountdownEpisode(facts)
        while True:
            for formula in spoiled(rng, formulas or ["+".join(map(str, numbers))], numbers, tries=8):
                answer = self.template.answer(formula, target)
                if not episode.grade(answer).correct:
                    return answer

    def given(self, path: Path, name: str, seed: int, limit: int | None = None) -> Tables:
        """Prompts of the games that a list has, in its order; those without a solution are left out.

        Raises:
            SftrlError: naming file, row and field, what was found and expected.
        """
        if split_of_set(name, self.splits) != "id":
            raise SftrlError(f"{name!r} is no name for a list of Countdown games; expected id_..")
        records = read_records(path, FIELDS[0], FIELDS)
        left_out = 0

        def games() -> Iterator[Mapping[str, Any]]:
            nonlocal left_out
            for record in records:
                numbers, target = _game(record)
                if is_solvable(numbers, target, self.settings.use):
                    yield {"task": COUNTDOWN.name, **self._facts(numbers, target), **self._attempts}
                else:
                    left_out += 1

        facts = list(islice(games(), limit))
        if left_out:
            self.notes.append(
                f"{left_out} games of {path} have no solution that uses {self.settings.use} of their numbers"
            )
        source = data_source(COUNTDOWN.data_sources, self.config.modality, name)
        yield prompt_table(COUNTDOWN.name, source, name, seed, facts)

    @property
    def _attempts(self) -> Mapping[str, int]:
        return {"max_attempts": self.config.max_attempts}

    def _facts(self, numbers: Sequence[int], target: int) -> dict[str, Any]:
        return {
            "numbers": list(numbers),
            "target": target,
            "use": self.settings.use,
            "template": self.template.name,
        }

    def _size(self, split: str, rng: np.random.Generator) -> int:
        if split == "ood_more_numbers":
            return self.settings.max_numbers + 1
        return int(rng.integers(self.settings.min_numbers, self.settings.max_numbers + 1))

    def _made_up(self, split: str, size: int, rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
        """Numbers and a target, each drawn uniformly."""
        settings, high = self.settings, self.settings.max_target
        low = settings.min_target
        if split == "ood_large_targets":
            low, high = high + 1, 2 * high
        numbers = rng.integers(settings.min_value, settings.max_value + 1, size)
        return tuple(numbers.tolist()), int(rng.integers(low, high + 1))

    def _listed(self, rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
        return _game(self._records[int(rng.integers(len(self._records)))])

    @cached_property
    def _records(self) -> list[Record]:
        return read_records(Path(self.settings.file), FIELDS[0], FIELDS)


def _game(record: Record) -> tuple[tuple[int, ...], int]:
    """Numbers and target of a record, or of the facts of a row of ours."""
    facts = record.fields.get("facts")
    if facts is not None:
        return check_instance(facts.get("numbers"), facts.get("target"), record.where)
    numbers = record.fields["nums"]
    if isinstance(numbers, str):
        numbers = [int(text) for text in re.findall(r"[0-9]{1,9}", numbers)]
    return check_instance(numbers, whole_number(record, "target"), record.where)
