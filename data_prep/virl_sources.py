"""Source of the walks of a file: routes with their panoramas, one split or a mixture, a seed.

Walk ``i`` of a source is a pure function of the source and ``i``: the routes of a split come in an order of
chance, all of them once, then all of them again in another order and with other rails.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_prep.virl_splits import ROUTE_SPLITS, RouteSplit
from sftrl_ext.envs.virl.episode import PlaySettings, track_of
from sftrl_ext.envs.virl.known_cities import nearest_city
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import Route, load_routes
from sftrl_ext.envs.virl.track import POINTS_PER_LEG, Track
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json

HOLDOUT = 0.1
"""Default share of the routes that no training walks."""

ROUTES = "route_infos.json"
MAPS = ("gps_pano_mapping.json", "gps_pano_mapping.parquet", "gps_pano_mapping.pkl")
VIEWS = "street_views"
"""File names of the authors' data set and of synthetic cities."""

SYNTHETIC = "city.json"
"""Settings of a synthetic city, in its folder."""


def held_out(route: Route, share: float) -> bool:
    """True if a route is held out from training; a hash of its points decides, the same in every file.

    Args:
        route: The route.
        share: Share of all routes that are held out, 0 to 1.
    """
    return _hash(route) < share * 2**32


def held_out_indices(routes: Sequence[Route], share: float) -> set[int]:
    """Positions of the routes of a set that no training walks, by `held_out`.

    A small set may have no such route by chance. With a share strictly between 0 and 1 it then has one, the
    one with the lowest hash; likewise one route is left to training.
    """
    indices = {index for index, route in enumerate(routes) if held_out(route, share)}
    if 0 < share < 1 and len(routes) > 1:
        order = sorted(range(len(routes)), key=lambda index: _hash(routes[index]))
        if not indices:
            return {order[0]}
        if len(indices) == len(routes):
            return indices - {order[-1]}
    return indices


def _hash(route: Route) -> int:
    points = [route.start, *(milestone.geocode for milestone in route.milestones)]
    # Six decimals are about 0.1 m: the part of a route does not depend on how a file writes its floats.
    text = " ".join(f"{lat:.6f} {lng:.6f}" for lat, lng in points)
    return zlib.crc32(text.encode())


@dataclass(frozen=True)
class RouteSet:
    """Routes of one file, and what there is to see along them.

    Attributes:
        name: What it is called in errors.
        routes: The routes.
        panoramas: Where there are panoramas; None to stay where the routes go.
        street_views: Folder of the panoramas; needed for images.
        problems: One sentence for each bad route that was left out.
        tracks: Cache of tracks by route and settings, shared by the check of routes and all files of a set.
        skipped: Index of a route to how many points its track leaves out for lack of a panorama.
    """

    name: str
    routes: Sequence[Route]
    panoramas: PanoramaMap | None = None
    street_views: Path | None = None
    problems: Sequence[str] = ()
    tracks: dict[tuple[object, ...], Track] = field(default_factory=dict, repr=False, compare=False)
    skipped: dict[int, int] = field(default_factory=dict, repr=False, compare=False)


def read_route_set(
    path: str | Path,
    *,
    gps_to_pano: str | Path | None = None,
    street_views: str | Path | None = None,
    skip_bad: bool = False,
    most_legs: int | None = None,
) -> RouteSet:
    """Read routes, with the map of panoramas and the street views that lie beside them.

    A route whose file names no city gets the style and seed of a synthetic one, that of `nearest_city`, or
    else the name of the folder.

    Args:
        path: A file of routes, or a folder that holds ``route_infos.json``.
        gps_to_pano: The map of panoramas; by default ``gps_pano_mapping.*`` beside the routes, if there.
        street_views: The folder of panoramas; by default ``street_views`` beside the routes, if there.
        skip_bad: Leave out bad routes instead of an error.
        most_legs: Cut longer routes after so many legs; None for routes as they are.

    Raises:
        SftrlError: if a file is missing or malformed.
    """
    path = Path(path).expanduser()
    file = path / ROUTES if path.is_dir() else path
    loaded = load_routes(file, skip_bad)
    beside = [file.parent / name for name in MAPS if (file.parent / name).is_file()]
    chosen = Path(gps_to_pano).expanduser() if gps_to_pano else next(iter(beside), None)
    views = Path(street_views).expanduser() if street_views else file.parent / VIEWS
    folder = file.resolve().parent
    synthetic = _synthetic_name(folder)
    routes = [
        replace(r, city=r.city or synthetic or nearest_city(r.start) or folder.name) for r in loaded.routes
    ]
    return RouteSet(
        str(file),
        routes if most_legs is None else [route.cut(most_legs) for route in routes],
        None if chosen is None else PanoramaMap.load(chosen),
        views if street_views or views.is_dir() else None,
        loaded.problems,
    )


def _synthetic_name(folder: Path) -> str:
    """Style and seed of the synthetic city in a folder; "" for any other folder."""
    path = folder / SYNTHETIC
    settings = read_json(path) if path.is_file() else None
    if not isinstance(settings, dict):
        return ""
    return f"{settings.get('style', '')} {settings.get('seed', '')}".strip()


def read_route_sets(
    path: str | Path, *, skip_bad: bool = False, most_legs: int | None = None
) -> list[RouteSet]:
    """Read one set of routes, or that of every city in a folder of cities; see `read_route_set`.

    Args:
        path: A file of routes, a folder that holds ``route_infos.json``, or a folder of such folders.
        skip_bad: Leave out bad routes instead of an error.
        most_legs: Cut longer routes after so many legs; None for routes as they are.

    Raises:
        SftrlError: if a file is missing or malformed.
    """
    path = Path(path).expanduser()
    cities = [] if (path / ROUTES).is_file() else sorted(file.parent for file in path.glob(f"*/{ROUTES}"))
    return [read_route_set(city, skip_bad=skip_bad, most_legs=most_legs) for city in cities or [path]]


@dataclass(frozen=True)
class Walk:
    """One route to be walked.

    Attributes:
        split: The split it belongs to.
        track: The route with its places.
        settings: How it is walked.
        rail_seed: Seed of its rail.
        chance: Seed of whatever else is drawn for it.
    """

    split: RouteSplit
    track: Track
    settings: PlaySettings
    rail_seed: int
    chance: int


@dataclass(frozen=True)
class RouteSource:
    """Source of the walks of a file.

    Attributes:
        home: Routes of the cities that are trained on; more than one are mixed route by route.
        away: Routes of the other cities.
        splits: A split name, or several for an even mixture: walk by walk in turns.
        seed: Seed of the order of routes, and of the rails.
        train: Draw from the training streams; otherwise from each split's evaluation stream.
        settings: How routes are walked; a split sets the action space, a set its street views.
        holdout: Share of the routes at home that no training walks.
        points_per_leg: Into how many parts a leg is cut; there may be a point at each.
        missing_panorama: "skip" or "error": what a point between milestones without a panorama is. The
            authors' loader leaves it out.
    """

    home: Sequence[RouteSet]
    away: Sequence[RouteSet] = ()
    splits: str | Sequence[str] = "id"
    seed: int = 0
    train: bool = True
    settings: PlaySettings = field(default_factory=PlaySettings)
    holdout: float = HOLDOUT
    points_per_leg: int = POINTS_PER_LEG
    missing_panorama: str = "skip"

    def settings_of(self, routes: RouteSet) -> PlaySettings:
        """Play settings of the routes of one set: with images, the set's street views."""
        if self.settings.modality != "image" or not routes.street_views:
            return self.settings
        return replace(self.settings, street_views=str(routes.street_views))

    def track(self, routes: RouteSet, route: Route) -> Track:
        """A route of a set with its places, laid once.

        Raises:
            SftrlError: if it lacks a panorama.
        """
        key = route, self.settings.street_views, self.points_per_leg, self.missing_panorama
        if key not in routes.tracks:
            skipped: list[str] = []
            routes.tracks[key] = track_of(
                route,
                self.settings_of(routes),
                routes.panoramas,
                self.points_per_leg,
                self.missing_panorama,
                skipped.append,
            )
            routes.skipped[route.index] = len(skipped)
        return routes.tracks[key]

    def resolved(self) -> list[RouteSplit]:
        """The splits.

        Raises:
            SftrlError: if one is unknown, or there is none.
        """
        names = [self.splits] if isinstance(self.splits, str) else list(self.splits)
        if not names:
            raise SftrlError("expected the name of at least one split of routes, found none.")
        return [ROUTE_SPLITS[name] for name in names]


def walks(source: RouteSource) -> Iterator[Walk]:
    """Every walk of a source, without end.

    Raises:
        SftrlError: if a split has no routes, or a route lacks a panorama.
    """
    if not 0 <= source.holdout <= 1:
        raise SftrlError(f"holdout is {source.holdout!r}, expected a share from 0 to 1.")
    if source.seed < 0:
        raise SftrlError(f"seed is {source.seed}, expected a whole number >= 0.")
    streams = [_walks(source, split) for split in source.resolved()]
    while True:
        for stream in streams:
            yield next(stream)


def _walks(source: RouteSource, split: RouteSplit) -> Iterator[Walk]:
    numbered = _routes(source, split)
    sets = _sets(source, split)
    settings = [replace(source.settings_of(routes), action_space=split.action_space) for routes in sets]
    stream = zlib.crc32(split.stream(source.train).encode())
    lap = 0
    while True:
        # Splits that share a stream (`routes_of`) get the same order and the same rails.
        rng = np.random.default_rng([source.seed, stream, lap])
        for number in rng.permutation(len(numbered)).tolist():
            rail, chance = rng.integers(2**31, size=2).tolist()
            of, route = numbered[number]
            yield Walk(split, source.track(sets[of], route), settings[of], rail, chance)
        lap += 1


def _sets(source: RouteSource, split: RouteSplit) -> Sequence[RouteSet]:
    sets = source.away if split.away else source.home
    if not sets:
        where = "of other cities" if split.away else "to walk"
        raise SftrlError(f"split {split.name!r} needs routes {where}; none were given.")
    return sets


def _routes(source: RouteSource, split: RouteSplit) -> list[tuple[int, Route]]:
    """The routes of a split, each with the number of its set."""
    sets = _sets(source, split)
    everything = [(of, route) for of, routes in enumerate(sets) for route in routes.routes]
    if split.part == "all":
        numbered = everything
    else:
        wanted = split.part == "held_out"
        apart = [held_out_indices(routes.routes, source.holdout) for routes in sets]
        numbered = [
            (of, route)
            for of, routes in enumerate(sets)
            for position, route in enumerate(routes.routes)
            if (position in apart[of]) == wanted
        ]
    if not numbered:
        names = ", ".join(routes.name for routes in sets)
        raise SftrlError(
            f"split {split.name!r}: none of the {len(everything)} routes in {names} is {split.part} with a "
            f"holdout of {source.holdout:g}; expected at least one: give more routes or another holdout."
        )
    return numbered
