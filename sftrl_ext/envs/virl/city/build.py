"""Building a city: panoramas, the map of panoramas and the routes, in the authors' formats."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sftrl_ext.envs.virl.city.paint import Painter
from sftrl_ext.envs.virl.city.plan import Plan, make_plan
from sftrl_ext.envs.virl.city.styles import CITY_STYLES
from sftrl_ext.envs.virl.city.walks import LEGS, geocodes, make_routes
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import Route, write_routes
from sftrl_ext.envs.virl.track import lay_track
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, replacing, write_json

STREETS = (3, 12)
"""Least and greatest number of streets across a city."""

WIDTHS = (64, 8192)
"""Least and greatest width of a panorama."""

POINTS = (0, 100)
"""Least and greatest number of parts of a leg."""

ROUTES, PICKLE, MAP, VIEWS = (
    "route_infos.json",
    "gps_pano_mapping.pkl",
    "gps_pano_mapping.json",
    "street_views",
)
"""Names of the files in a city's folder."""

_SETTINGS = "city.json"
_VERSION = 2


@dataclass(frozen=True)
class City:
    """A city to build. All values are plain.

    Attributes:
        style: A name of `CITY_STYLES`.
        seed: The same seed gives the same city, to the pixel.
        routes: How many routes.
        streets: Streets across; None for as many as the routes need.
        width: Width of the panoramas in pixels, an even number; they are half as high.
        pictures: True to draw panoramas at all; text needs none.
        most_legs: Most legs of a route.
        points_per_leg: Draw only what a walk with so many points a leg may pass; None for every panorama.
    """

    style: str = "brick"
    seed: int = 0
    routes: int = 100
    streets: int | None = None
    width: int = 1024
    pictures: bool = True
    most_legs: int = max(LEGS)
    points_per_leg: int | None = None

    def __post_init__(self) -> None:
        CITY_STYLES[self.style]
        for name, value, (low, high) in (
            ("number of routes", self.routes, (1, 1_000_000)),
            ("seed", self.seed, (0, 2**63)),
            ("number of streets across", STREETS[0] if self.streets is None else self.streets, STREETS),
            ("width of a panorama", self.width, WIDTHS),
            ("most legs of a route", self.most_legs, (min(LEGS), max(LEGS))),
            ("points a leg", POINTS[0] if self.points_per_leg is None else self.points_per_leg, POINTS),
        ):
            if type(value) is not int or not low <= value <= high:
                raise SftrlError(f"the {name} of a city must be {low} to {high}, found {value!r}.")
        if self.width % 2:
            raise SftrlError(f"the width of a panorama must be even, found {self.width}.")

    @property
    def number(self) -> int:
        """The seed of everything in it: cities of other styles have other streets and names."""
        return zlib.crc32(f"{self.style} {self.seed}".encode())

    def plan(self) -> Plan:
        """Lay it out."""
        across = min(STREETS[1], round(3 + self.routes ** (1 / 3))) if self.streets is None else self.streets
        return make_plan(CITY_STYLES[self.style], across, self.number)


def build_city(
    out: Path | str,
    style: str = "brick",
    seed: int = 0,
    routes: int = 100,
    *,
    width: int = 1024,
    streets: int | None = None,
    pictures: bool = True,
    most_legs: int = max(LEGS),
    points_per_leg: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a city: its routes, its map of panoramas and its panoramas.

    Files appear whole, and the routes last. A build that was interrupted goes on where it was when it is
    started again.

    Args:
        out: A folder: a new one, or one of this city.
        style: A name of `CITY_STYLES`.
        seed: The same seed gives the same city, to the pixel.
        routes: How many routes.
        width: Width of the panoramas in pixels; the authors' have 1700 to 2050.
        streets: Streets across; None for as many as the routes need.
        pictures: True to draw panoramas; text needs none.
        most_legs: Most legs of a route: 2 to 8.
        points_per_leg: Draw only the panoramas that a walk with so many points a leg may pass; None for all.
        progress: Told how many panoramas are there of how many, after each.

    Returns:
        The file of routes.

    Raises:
        SftrlError: if an argument is out of its range, the folder holds another city or other files, or the
            city is too small for its routes.
    """
    city = City(style, seed, routes, streets, width, pictures, most_legs, points_per_leg)
    out = Path(out)
    plan = city.plan()
    walks = make_routes(plan, city.routes, city.number, city.most_legs)
    _claim(out, city)
    places = geocodes(plan)
    ids = [f"{city.style}-{city.seed}-{index:05d}" for index in range(len(places))]
    mapping = PanoramaMap(dict(zip(places, ids, strict=True)))
    if city.pictures:
        _draw(out / VIEWS, city, plan, _wanted(city, walks, mapping, ids), progress)
    mapping.save(out / MAP)
    _write(out / PICKLE, pickle.dumps(mapping.places, protocol=4))
    write_routes(out / ROUTES, walks)
    return out / ROUTES


def _claim(out: Path, city: City) -> None:
    """Mark a folder as that of a city."""
    settings = {"version": _VERSION, **asdict(city)}
    if (out / _SETTINGS).is_file():
        stored = read_json(out / _SETTINGS)
        if stored != settings:
            raise SftrlError(
                f"{out / _SETTINGS}: the folder holds another city ({stored}); choose a new folder."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SftrlError(f"{out}: expected a new or empty folder for a city.")
    write_json(out / _SETTINGS, settings)


def _wanted(city: City, walks: list[Route], mapping: PanoramaMap, ids: list[str]) -> dict[int, str]:
    """The panoramas to draw: point to id."""
    if city.points_per_leg is None:
        return dict(enumerate(ids))
    tracks = (lay_track(route, mapping, points_per_leg=city.points_per_leg) for route in walks)
    passed = {waypoint.pano_id for track in tracks for waypoint in track.waypoints}
    return {index: pano_id for index, pano_id in enumerate(ids) if pano_id in passed}


def _draw(
    folder: Path, city: City, plan: Plan, ids: dict[int, str], progress: Callable[[int, int], None] | None
) -> None:
    """Draw the panoramas that are missing."""
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".*.tmp"):
        left.unlink()
    painter: Painter | None = None
    turns = np.random.default_rng([city.number, 61]).uniform(0, 360, len(plan.points)).round(2)
    for done, (index, pano_id) in enumerate(ids.items(), start=1):
        path = folder / f"{pano_id}.jpg"
        if not path.is_file():
            painter = painter or Painter(plan, (city.width, city.width // 2), city.number)
            x, y = plan.points[index].tolist()
            image = painter.paint((x, y), float(turns[index]))
            # The picture comes last: where it is, the other file is too.
            facts = {"rotation": float(turns[index]), "width": image.width, "height": image.height}
            _write(folder / f"{pano_id}.metadata.json", json.dumps(facts).encode())
            with replacing(path) as temporary:
                image.save(temporary, "JPEG", quality=90)
        if progress is not None:
            progress(done, len(ids))


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
