"""The data stage: every parquet file of a run, built as its kind of task asks for."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from data_prep.card import write_card
from data_prep.general_points import Solutions, reasoned_rows, rl_rows, sft_rows, suboptimal_rows
from data_prep.given_hands import given_hand_rows
from data_prep.given_routes import given_route_rows
from data_prep.origins import Origin, origins_text, path_digest, write_origins
from data_prep.sources import Source
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_check import check_routes
from data_prep.virl_sources import RouteSet, RouteSource, read_route_set, read_route_sets
from data_prep.virl_splits import ROUTE_SPLITS
from data_prep.writer import write_rows
from sftrl_ext.envs.virl.episode import PlaySettings as RouteSettings
from sftrl_ext.errors import Registry, SftrlError
from sftrl_ext.experiments.arms import ArmRun, arm_runs, is_row_file, needs_init
from sftrl_ext.experiments.given_data import hand_settings, import_arm_rows
from sftrl_ext.experiments.given_paths import named
from sftrl_ext.experiments.recipe import CityConfig, Recipe, TaskConfig
from sftrl_ext.runs.layout import RunLayout

Splits = str | Sequence[str]
Tables = Iterator[pa.Table]


class Rows(ABC):
    """Makes the rows of one kind of task; ``attempts`` None is as many as the task gives.

    Attributes:
        notes: One sentence for each thing of the task's files that is left out.

    Args:
        prompts: Builds prompts of so many rows of a source.
        experts: Builds expert answers.
        failures: Builds dialogues with so many failed attempts, fewest and most.
        reasoned: Builds expert answers that show their working; None: all answers show as much as any can.
    """

    notes: Sequence[str] = ()

    def __init__(
        self,
        prompts: Callable[[Any, int], Tables],
        experts: Callable[[Any, int], Tables],
        failures: Callable[[Any, int, tuple[int, int]], Tables],
        reasoned: Callable[[Any, int], Tables] | None = None,
    ) -> None:
        self._prompts, self._experts, self._failures = prompts, experts, failures
        self._reasoned = reasoned or experts

    @abstractmethod
    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> Source | RouteSource:
        """Where rows come from: hands or walks of some splits, as they are played."""

    def benchmark_rows(self, split: str) -> int | None:
        """Instances of a split that is a benchmark of given size; None for splits that are drawn."""
        return None

    def sft(
        self, splits: Splits, rows: int, seed: int, pretraining: bool = False, attempts: int | None = None
    ) -> Tables:
        """Expert answers."""
        return self._experts(self.source(splits, seed, attempts, pretraining=pretraining), rows)

    def reasoned(self, splits: Splits, rows: int, seed: int, attempts: int | None = None) -> Tables:
        """Expert answers that show their working."""
        return self._reasoned(self.source(splits, seed, attempts), rows)

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
        return self._failures(source, rows, (fewest, source.settings.max_attempts - 1))

    def prompts(
        self, splits: Splits, rows: int, seed: int, train: bool = True, attempts: int | None = None
    ) -> Tables:
        """What RL trains on, or with ``train`` False what is evaluated."""
        return self._prompts(self.source(splits, seed, attempts, train=train), rows)

    @abstractmethod
    def given(self, path: Path, name: str, seed: int, limit: int | None) -> Tables:
        """Prompts of the instances that a file lists, as an evaluation split of that name."""


ROWS: Registry[Callable[[Recipe, RunLayout], Rows]] = Registry("kind of task")
"""Kind of task to what makes its rows."""


def build_data(recipe: Recipe, layout: RunLayout) -> None:
    """Build every parquet file of the run: pre-training, init, each seed's rows for every arm, evaluation."""
    task, budget = recipe.task, recipe.budget
    make = ROWS[task.kind](recipe, layout)
    both = list(task.pretrain_splits) or task.train_split
    if budget.base is not None:
        write_rows(layout.rows("base"), make.sft(both, budget.base.rows, 1_000, pretraining=True))
    if budget.dialogues is not None:
        write_rows(layout.rows("dialogues"), make.dialogues(both, budget.dialogues.rows, 1_001))
    if needs_init(recipe):
        write_rows(layout.rows("init"), make.sft(task.train_split, budget.init.rows, 2_000))
    origins: dict[str, Origin] = {}
    for run in {run.rows: run for run in arm_runs(recipe)}.values():
        if is_row_file(run.config.rows):
            origins[run.rows] = import_arm_rows(recipe, run, layout)
        else:
            write_rows(layout.rows(run.rows), _rows_of(run, make, task))
    for split in task.eval_splits:
        out = layout.eval_rows(split)
        if split in task.eval_sets:
            path, limit = Path(task.eval_sets[split]), budget.eval.hands_of.get(split)
            with named(f"task.eval_sets.{split}"):
                rows = write_rows(out, make.given(path, split, budget.eval.seed, limit))
            origins[out.stem] = Origin(str(path), path_digest(path), rows, rows)
            continue
        rows = budget.eval.hands_of.get(split) or make.benchmark_rows(split) or budget.eval.hands
        write_rows(out, make.prompts(split, rows, budget.eval.seed, train=False))
    write_origins(layout.origins, origins)
    for note in make.notes:
        sys.stdout.write(f"left out: {note}\n")
    files = sorted(layout.data.glob("*.parquet"))
    write_card(files, layout.data / "dataset_card.md", make.notes, origins_text(origins))


def _rows_of(run: ArmRun, make: Rows, task: TaskConfig) -> Tables:
    """What one run of an arm trains on."""
    arm, rows = run.config, run.budget.rows
    splits: Splits = list(arm.splits) or task.train_split
    if arm.kind == "rl":
        return make.prompts(splits, rows, run.seed, attempts=arm.max_attempts)
    if arm.rows == "suboptimal":
        return make.dialogues(splits, rows, run.seed, fewest=1, pretraining=False, attempts=arm.max_attempts)
    answers = make.reasoned if arm.rows == "reasoned" else make.sft
    return answers(splits, rows, run.seed, attempts=arm.max_attempts)


@ROWS.register("general_points")
class HandRows(Rows):
    """Rows of the card game."""

    def __init__(self, recipe: Recipe, layout: RunLayout) -> None:
        task = recipe.task
        how = cast(Solutions, task.solutions)  # the builder refuses any other
        super().__init__(
            rl_rows,
            lambda source, rows: sft_rows(source, rows, how),
            lambda source, rows, mistakes: suboptimal_rows(source, rows, how, mistakes),
            lambda source, rows: reasoned_rows(source, rows, how),
        )
        self.task = task
        self.settings = hand_settings(task)

    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> Source:
        """See `Rows`."""
        suits = self.task.pretrain_suits if pretraining else None
        hands = {"suits": suits or self.task.suits}
        if self.task.draw is not None:
            hands["draw"] = self.task.draw
        settings = replace(self.settings, max_attempts=attempts or self.task.max_attempts)
        return Source(splits, seed=seed, train=train, settings=settings, hands=hands)

    def given(self, path: Path, name: str, seed: int, limit: int | None) -> Tables:
        """See `Rows`."""
        source = self.source("id", seed, None, train=False)
        return given_hand_rows(path, name, source, train_split=self.task.train_split, limit=limit)


@ROWS.register("virl")
class RouteRows(Rows):
    """Rows of routes; synthetic cities are made first, under the run's data."""

    def __init__(self, recipe: Recipe, layout: RunLayout) -> None:
        super().__init__(route_rl_rows, route_sft_rows, route_suboptimal_rows)
        task = recipe.task
        self.routes = task.routes
        pretrain = [] if recipe.budget.base is None else self.routes.pretrain
        _check_unseen(pretrain, self.routes.away)
        cities = (self.routes.home, *self.routes.away, *pretrain)
        read = [self._read(number, city, task, layout) for number, city in enumerate(cities)]
        first_pretrain = 1 + len(self.routes.away)
        away, further = (list(chain(*sets)) for sets in (read[1:first_pretrain], read[first_pretrain:]))
        self.home_sets = len(read[0])
        everything = self._every(task, [*read[0], *further], away)
        self.walked, self.notes = check_routes(everything, skip_bad=self.routes.skip_bad)

    def _read(self, number: int, city: CityConfig, task: TaskConfig, layout: RunLayout) -> list[RouteSet]:
        folder = layout.city(f"{number}-{city.style}-{city.seed}")
        path = city_of(city, folder, task.modality == "image", self.routes.points_per_leg)
        if city.path is None:
            return [read_route_set(path)]
        return read_route_sets(path, skip_bad=self.routes.skip_bad, most_legs=self.routes.most_legs)

    def _every(self, task: TaskConfig, trained: list[RouteSet], away: list[RouteSet]) -> RouteSource:
        """All walks: those of home, then those of pre-training, and those of the other cities."""
        images, home = task.modality == "image", trained[0]
        return RouteSource(
            trained,
            away,
            settings=RouteSettings(
                max_attempts=task.max_attempts,
                profile=task.profile,
                template=task.template,
                modality=task.modality,
                exceeded_penalty=self.routes.exceeded_penalty,
                drop_rate=self.routes.drop_rate,
                street_views=str(home.street_views) if images and home.street_views else None,
                image_size=self.routes.image_size if images else None,
            ),
            holdout=self.routes.holdout,
            points_per_leg=self.routes.points_per_leg,
            missing_panorama=self.routes.missing_panorama,
        )

    def benchmark_rows(self, split: str) -> int | None:
        """Each route of the other cities once, where these are read from files; else None."""
        if not ROUTE_SPLITS[split].away or any(city.path is None for city in self.routes.away):
            return None
        return sum(len(routes.routes) for routes in self.walked.away) or None

    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> RouteSource:
        """See `Rows`; pre-training walks its own cities too."""
        settings = self.walked.settings
        settings = replace(settings, max_attempts=attempts or settings.max_attempts)
        home = self.walked.home if pretraining else self.walked.home[: self.home_sets]
        return replace(self.walked, home=home, splits=splits, seed=seed, train=train, settings=settings)

    def given(self, path: Path, name: str, seed: int, limit: int | None) -> Tables:
        """See `Rows`."""
        return given_route_rows(path, name, self.source("id", seed, None, train=False), limit=limit)


def _check_unseen(pretrain: Sequence[CityConfig], away: Sequence[CityConfig]) -> None:
    """Refuse a city that is pre-trained in and tested in as another one."""

    def key(city: CityConfig) -> tuple[object, ...]:
        return (city.path,) if city.path else (city.style, city.seed)

    tested = {key(city) for city in away}
    for number, city in enumerate(pretrain):
        if key(city) in tested:
            raise SftrlError(
                f"task.routes.pretrain[{number}] is {city.path or f'{city.style} {city.seed}'}, one of "
                "task.routes.away; expected a city that no evaluation walks."
            )


def city_of(city: CityConfig, folder: Path, images: bool, points_per_leg: int) -> Path:
    """The routes of a city: where its path says, or a synthetic one, made in ``folder``.

    Of a synthetic one only the panoramas are drawn that walks with so many points a leg may pass.
    """
    if city.path is not None:
        return Path(city.path).expanduser().resolve()
    from sftrl_ext.envs.virl.city import build_city

    return build_city(
        folder,
        city.style,
        city.seed,
        city.routes,
        width=city.width,
        most_legs=city.most_legs,
        points_per_leg=points_per_leg,
        pictures=images,
    )
