"""Rows of routes for the data stage and ``sftrl data``, and the kinds that make cities and maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from data_prep.given_routes import given_route_rows
from data_prep.options import DataOptions
from data_prep.route_card import RouteCard
from data_prep.task_rows import Splits, Tables, TaskRows
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_check import check_routes
from data_prep.virl_sources import RouteSet, RouteSource, read_route_set, read_route_sets
from data_prep.virl_splits import ROUTE_SPLITS
from sftrl_ext.envs.task_config import CityConfig, RoutesConfig, TaskConfig
from sftrl_ext.envs.virl.episode import PlaySettings
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.track import MISSING
from sftrl_ext.envs.virl.verifier import MODALITIES
from sftrl_ext.errors import SftrlError, check_known, named, unknown_name

_SAMPLE_TEXTS = [
    "No other text than one JSON object: current observation, current instruction, action. "
    "turn_direction(north) turn_direction(northeast) turn_direction(left) forward() stop() intersection",
    "First, turn left to face east. Move forward until you reach the next intersection where the cafe is "
    "on your right behind. Turn right to face south and move forward until the landmark is in front of you.",
]
"""Words of routes, whose rows are drawn from a city that a run makes first."""


class RouteRows(TaskRows):
    """Rows of routes; synthetic cities are made first, in the folder.

    Attributes:
        walked: The good routes.
    """

    def __init__(self, config: TaskConfig, folder: Path, pretrain: bool = False) -> None:
        super().__init__(config, folder, pretrain)
        self.builders = {"rl": route_rl_rows, "sft": route_sft_rows, "suboptimal": route_suboptimal_rows}
        routes = config.routes
        further = routes.pretrain if pretrain else []
        _check_unseen(further, routes.away)
        cities = (routes.home, *routes.away, *further)
        read = [self._read(number, city, folder) for number, city in enumerate(cities)]
        first = 1 + len(routes.away)
        self.home_sets = len(read[0])
        everything = self._every([*read[0], *chain(*read[first:])], [*chain(*read[1:first])])
        self.walked, self.notes = check_routes(everything, skip_bad=routes.skip_bad)

    @classmethod
    def split_names(cls) -> Collection[str]:
        """See `TaskRows`."""
        return [*ROUTE_SPLITS]

    @classmethod
    def check(cls, config: TaskConfig, splits: Mapping[str, Sequence[str]]) -> None:
        """See `TaskRows`."""
        from sftrl_ext.envs.virl.city import City

        super().check(config, splits)
        routes = config.routes
        check_known("task.routes.missing_panorama", "choice", routes.missing_panorama, MISSING)
        for key, city in (
            ("home", routes.home),
            *((f"away[{number}]", city) for number, city in enumerate(routes.away)),
            *((f"pretrain[{number}]", city) for number, city in enumerate(routes.pretrain)),
        ):
            if city.path is None:
                with named(f"task.routes.{key}"):
                    City(
                        city.style,
                        city.seed,
                        city.routes,
                        width=city.width,
                        most_legs=city.most_legs,
                        points_per_leg=routes.points_per_leg,
                    )
        with named("task"):
            PlaySettings(
                profile=config.profile,
                template=config.template,
                modality=config.modality,
                street_views="." if config.modality == "image" else None,
            )

    @classmethod
    def card(cls) -> RouteCard:
        """See `TaskRows`."""
        return RouteCard()

    @classmethod
    def sample_texts(cls, rows: int) -> list[str]:
        """See `TaskRows`."""
        return _SAMPLE_TEXTS * rows

    @classmethod
    def configure(cls, config: TaskConfig, options: DataOptions) -> None:
        """See `TaskRows`."""
        if options.routes is None:
            raise SftrlError(
                f"task {config.kind!r} needs routes: expected --routes route_infos.json, or a city's folder."
            )
        size = config.look
        if size and size["width"] != size["height"]:
            raise SftrlError(
                f"image size is {options.image_size!r}; expected a square for task {config.kind!r}."
            )
        config.routes = RoutesConfig(
            home=CityConfig(path=str(options.routes)),
            away=[CityConfig(path=str(path)) for path in options.away or ()],
            missing_panorama=options.missing_panorama or "skip",
            skip_bad=options.skip_bad,
        )
        if options.holdout is not None:
            config.routes.holdout = options.holdout
        if size:
            config.routes.image_size = size["width"]

    def _read(self, number: int, city: CityConfig, folder: Path) -> list[RouteSet]:
        routes = self.config.routes
        cache = folder / f"{number}-{city.style}-{city.seed}"
        path = city_of(city, cache, self.config.modality == "image", routes.points_per_leg)
        if city.path is None:
            return [read_route_set(path)]
        return read_route_sets(path, skip_bad=routes.skip_bad, most_legs=routes.most_legs)

    def _every(self, trained: list[RouteSet], away: list[RouteSet]) -> RouteSource:
        """All walks: those of home, then those of pre-training, and those of the other cities."""
        config, routes, images = self.config, self.config.routes, self.config.modality == "image"
        views = next((routes.street_views for routes in (*trained, *away) if routes.street_views), None)
        return RouteSource(
            trained,
            away,
            settings=PlaySettings(
                max_attempts=config.max_attempts,
                profile=config.profile,
                template=config.template,
                modality=config.modality,
                exceeded_penalty=routes.exceeded_penalty,
                drop_rate=routes.drop_rate,
                street_views=str(views) if images and views else None,
                image_size=routes.image_size if images else None,
            ),
            holdout=routes.holdout,
            points_per_leg=routes.points_per_leg,
            missing_panorama=routes.missing_panorama,
        )

    def benchmark_rows(self, split: str) -> int | None:
        """Each route of the other cities once, where these are read from files; else None."""
        if not ROUTE_SPLITS[split].away or any(city.path is None for city in self.config.routes.away):
            return None
        return sum(len(routes.routes) for routes in self.walked.away) or None

    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None = None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> RouteSource:
        """See `TaskRows`; pre-training walks its own cities too."""
        settings = self.walked.settings
        settings = replace(settings, max_attempts=attempts or settings.max_attempts)
        home = self.walked.home if pretraining else self.walked.home[: self.home_sets]
        return replace(self.walked, home=home, splits=splits, seed=seed, train=train, settings=settings)

    def given(self, path: Path, name: str, seed: int, limit: int | None = None) -> Tables:
        """See `TaskRows`."""
        return given_route_rows(path, name, self.source("id", seed, train=False), limit=limit)


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


def make_city(options: DataOptions) -> int:
    """Make a synthetic city in the folder ``options.out``; returns its number of routes."""
    from sftrl_ext.envs.virl.city import build_city

    if options.modality not in MODALITIES:
        raise unknown_name("modality", options.modality, MODALITIES)
    images = options.modality == "image"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("draw panoramas", total=None, visible=images)
        build_city(
            options.out,
            options.style or "brick",
            options.seed,
            options.rows,
            pictures=images,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return options.rows


def convert_map(options: DataOptions) -> int:
    """Write a map of panoramas in the format that the ending of ``options.out`` says."""
    if options.source is None:
        raise SftrlError("kind 'panoramas' needs a map of panoramas: expected --from gps_pano_mapping.pkl.")
    panoramas = PanoramaMap.load(options.source)
    panoramas.save(options.out)
    return len(panoramas)


RouteRows.commands = {"virl-city": ("routes", make_city), "panoramas": ("places", convert_map)}
