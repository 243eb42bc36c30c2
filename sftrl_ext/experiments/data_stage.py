"""The data stage: every parquet file of a run, built as its kind of task asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from data_prep.card import write_card
from data_prep.general_points import Solutions, rl_rows, sft_rows, suboptimal_rows
from data_prep.sources import Source
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_check import check_routes
from data_prep.virl_sources import RouteSet, RouteSource, read_route_set
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.envs.virl.episode import PlaySettings as RouteSettings
from sftrl_ext.errors import Registry
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import CityConfig, Recipe, TaskConfig

Splits = str | Sequence[str]
Tables = Iterator[pa.Table]


class Rows(Protocol):
    """Makes the rows of one kind of task."""

    def sft(self, splits: Splits, rows: int, seed: int, pretraining: bool = False) -> Tables:
        """Expert answers."""
        ...

    def dialogues(self, splits: Splits, rows: int, seed: int) -> Tables:
        """Expert answers after none, some or all but one of the attempts failed, for pre-training."""
        ...

    def prompts(self, splits: Splits, rows: int, seed: int, train: bool = True) -> Tables:
        """What RL trains on, or with ``train`` False what is evaluated."""
        ...


ROWS: Registry[Callable[[Recipe, RunLayout], Rows]] = Registry("kind of task")
"""Kind of task to what makes its rows."""


def build_data(recipe: Recipe, layout: RunLayout) -> None:
    """Build every parquet file of the run: pre-training, init, each seed's rows for both arms, evaluation."""
    task, budget = recipe.task, recipe.budget
    make = ROWS[task.kind](recipe, layout)
    both = list(task.pretrain_splits) or task.train_split
    if budget.base is not None:
        write_rows(layout.rows("base"), make.sft(both, budget.base.rows, 1_000, pretraining=True))
    if budget.dialogues is not None:
        write_rows(layout.rows("dialogues"), make.dialogues(both, budget.dialogues.rows, 1_001))
    write_rows(layout.rows("init"), make.sft(task.train_split, budget.init.rows, 2_000))
    for seed in recipe.sweep.seeds:
        if "sft" in recipe.arms:
            write_rows(layout.rows(f"sft-s{seed}"), make.sft(task.train_split, budget.sft.rows, seed))
        if "rl" in recipe.arms:
            write_rows(layout.rows(f"rl-s{seed}"), make.prompts(task.train_split, budget.rl.rows, seed))
    for split in task.eval_splits:
        rows = budget.eval.hands_of.get(split, budget.eval.hands)
        write_rows(layout.eval_rows(split), make.prompts(split, rows, budget.eval.seed, train=False))
    write_card(sorted(layout.data.glob("*.parquet")), layout.data / "dataset_card.md")


@ROWS.register("general_points")
class HandRows:
    """Rows of the card game."""

    def __init__(self, recipe: Recipe, layout: RunLayout) -> None:
        task = recipe.task
        self.task = task
        self.settings = PlaySettings(
            max_attempts=task.max_attempts,
            profile=task.profile,
            template=task.template,
            modality=task.modality,
            look=as_look(task.look) if task.modality == "image" else None,
        )
        self.how = cast(Solutions, task.solutions)  # the builder refuses any other

    def _source(self, splits: Splits, seed: int, train: bool = True, suits: str | None = None) -> Source:
        hands = {"draw": self.task.draw, "suits": suits or self.task.suits}
        return Source(splits, seed=seed, train=train, settings=self.settings, hands=hands)

    def sft(self, splits: Splits, rows: int, seed: int, pretraining: bool = False) -> Tables:
        """See `Rows`."""
        suits = self.task.pretrain_suits if pretraining else None
        return sft_rows(self._source(splits, seed, suits=suits), rows, self.how)

    def dialogues(self, splits: Splits, rows: int, seed: int) -> Tables:
        """See `Rows`."""
        source = self._source(splits, seed, suits=self.task.pretrain_suits)
        return suboptimal_rows(source, rows, self.how, (0, self.task.max_attempts - 1))

    def prompts(self, splits: Splits, rows: int, seed: int, train: bool = True) -> Tables:
        """See `Rows`."""
        return rl_rows(self._source(splits, seed, train), rows)


@ROWS.register("virl")
class RouteRows:
    """Rows of routes; synthetic cities are made first, under the run's data."""

    def __init__(self, recipe: Recipe, layout: RunLayout) -> None:
        task = recipe.task
        self.routes = task.routes
        images = task.modality == "image"
        cities = (self.routes.home, *self.routes.away)
        names = [f"{number}-{city.style}-{city.seed}" for number, city in enumerate(cities)]
        home, *away = [
            read_route_set(city_of(city, layout.city(name), images))
            for city, name in zip(cities, names, strict=True)
        ]
        self.source, _ = check_routes(self._every(task, home, away))

    def _every(self, task: TaskConfig, home: RouteSet, away: list[RouteSet]) -> RouteSource:
        images = task.modality == "image"
        return RouteSource(
            [home],
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

    def _source(self, splits: Splits, seed: int, train: bool = True) -> RouteSource:
        return replace(self.source, splits=splits, seed=seed, train=train)

    def sft(self, splits: Splits, rows: int, seed: int, pretraining: bool = False) -> Tables:
        """See `Rows`."""
        return route_sft_rows(self._source(splits, seed), rows)

    def dialogues(self, splits: Splits, rows: int, seed: int) -> Tables:
        """See `Rows`."""
        most = self.source.settings.max_attempts - 1
        return route_suboptimal_rows(self._source(splits, seed), rows, (0, most))

    def prompts(self, splits: Splits, rows: int, seed: int, train: bool = True) -> Tables:
        """See `Rows`."""
        return route_rl_rows(self._source(splits, seed, train), rows)


def city_of(city: CityConfig, folder: Path, images: bool) -> Path:
    """The routes of a city: where its path says, or a synthetic one, made in ``folder``."""
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
        pictures=images,
    )
