"""Folders in the formats of the authors' data set, written by hand: what their loaders accept, ours must.

`write_city` writes one folder (``route_infos.json``, ``gps_pano_mapping.pkl``, ``street_views/``) and
`write_mini_benchmark` one with 18 routes in 9 cities. Formats are those of the crawler of V-IRL and of the
authors' offline loader: the second item of the route file counts the destinations that were tried; panoramas
stand along the streets with gaps, so some points between milestones have none; one picture is missing.
Names, streets and pictures are made up.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from sftrl_ext.envs.virl.geo import compass_word, distance_m, heading_deg, offset

CITIES: Mapping[str, tuple[float, float]] = {
    "Milan": (45.4642, 9.1900),
    "New Delhi": (28.6315, 77.2167),
    "Buenos Aires": (-34.6037, -58.3816),
    "London": (51.5074, -0.1278),
    "Hong Kong": (22.2819, 114.1582),
    "New York": (40.7580, -73.9855),
    "Melbourne": (-37.8136, 144.9631),
    "Lagos": (6.4541, 3.3947),
    "San Francisco": (37.7793, -122.4193),
}
"""The nine cities of the mini benchmark, and a place in each."""

_KINDS = ("Cafe", "Pharmacy", "Books", "Hotel & Spa", "Museum of Glass", "Parking", "Bakery", "Bank")
_NAMES = (
    "Alba",
    "Joe's",
    "Maple",
    "San Martin",
    "Old Mill",
    "Star",
    "Lucky 88",
    "Pérez",
    "Orchid",
    "Queen's",
)
_SIDES = ("front", "right front", "right", "right behind", "behind", "left behind", "left", "left front")
_STREET_M = 12.0
_PANORAMA_SIZE = (128, 64)


def write_city(
    folder: Path,
    name: str,
    routes: int,
    *,
    seed: int = 0,
    pictures: bool = True,
    legs: tuple[int, int] = (2, 5),
) -> Path:
    """Write the routes of one city, as the authors' ``nyc_1k_routes``.

    Args:
        folder: A new folder.
        name: A name of `CITIES`.
        routes: How many.
        seed: Seed of everything in it.
        pictures: Write ``street_views`` too.
        legs: Fewest and most milestones.
    """
    return _write(folder, [name] * routes, random.Random(f"{name} {seed}"), pictures, legs)


def write_mini_benchmark(folder: Path, *, pictures: bool = True, seed: int = 0) -> Path:
    """Write 18 routes, two in each of the nine cities, as the authors' ``VLN_mini``."""
    return _write(folder, [name for name in CITIES for _ in range(2)], random.Random(seed), pictures, (2, 5))


def write_sft_data(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Write prompts and answers as the authors' ``data.json``."""
    records = [
        {
            "image": None,
            "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}],
        }
        for prompt, answer in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def missing_between(folder: Path) -> int:
    """Number of points at fifths of the legs without a panorama less than 20 m away."""
    routes, _ = json.loads((folder / "route_infos.json").read_text(encoding="utf-8"))
    with (folder / "gps_pano_mapping.pkl").open("rb") as file:
        places = list(pickle.load(file))
    missing = 0
    for route in routes:
        last = tuple(route["start_place"]["relocated_geocode"])
        for end in map(tuple, route["route_results"]["geocode_list"]):
            for part in range(1, 6):
                point = tuple(a + (b - a) * part / 5 for a, b in zip(last, end, strict=True))
                missing += min(distance_m(point, place) for place in places) >= 20
            last = end
    return missing


def _write(
    folder: Path, cities: Sequence[str], rng: random.Random, pictures: bool, legs: tuple[int, int]
) -> Path:
    mapping: dict[tuple[float, float], str] = {}
    routes = [_route(city, rng, mapping, rng.randint(*legs)) for city in cities]
    (folder / "street_views").mkdir(parents=True)
    counter = len(routes) + rng.randint(20, 90)  # destinations that were tried, most without a route
    text = json.dumps([routes, counter], ensure_ascii=False)
    (folder / "route_infos.json").write_text(text, encoding="utf-8")
    with (folder / "gps_pano_mapping.pkl").open("wb") as file:
        pickle.dump(mapping, file)
    if pictures:
        needed = {tuple(place) for route in routes for place in _ends(route)}
        spare = [place for place in mapping if place not in needed]
        lost = rng.choice(spare)  # a panorama of the map that was never fetched
        for place, pano_id in mapping.items():
            if place != lost:
                _panorama(folder / "street_views", pano_id, place, rng)
    return folder


def _ends(route: Mapping[str, Any]) -> list[list[float]]:
    return [route["start_place"]["relocated_geocode"], *route["route_results"]["geocode_list"]]


def _route(
    city: str, rng: random.Random, mapping: dict[tuple[float, float], str], legs: int
) -> dict[str, Any]:
    """One route of the crawler: places as its map service describes them, one block of text a milestone."""
    lat, lng = CITIES[city]
    start = offset((lat, lng), rng.uniform(0, 360), rng.uniform(0, 2500))
    points, heading = [start], rng.uniform(0, 360)
    for _ in range(legs):
        heading += rng.choice((-90, 90, -35, 35, 0)) + rng.uniform(-8, 8)
        points.append(offset(points[-1], heading % 360, rng.uniform(60, 160)))
    points = [(round(a, 7), round(b, 7)) for a, b in points]
    for here, there in zip(points, points[1:], strict=False):
        _street(here, there, rng, mapping)
    dest = _place(city, rng, offset(points[-1], rng.uniform(0, 360), 12))
    landmarks = [
        _place(city, rng, offset(point, rng.uniform(0, 360), 15)) if rng.random() < 0.7 else None
        for point in points[1:-1]
    ]
    metres = [round(distance_m(a, b)) for a, b in zip(points, points[1:], strict=False)]
    return {
        "dest_place": {**dest, "relocated_geocode": list(points[-1])},
        "start_place": {**_place(city, rng, start), "relocated_geocode": list(points[0])},
        "route_results": {
            "geocode_list": [list(point) for point in points[1:]],
            "polyline": ["_p~iF~ps|U" for _ in metres],
            "instructions": ["Head <b>north</b>" for _ in metres],
            "distance_list": metres,
            "time_list": [metre for metre in metres],
            "time": sum(metres),
            "distance": sum(metres),
            "n_landmarks": sum(landmark is not None for landmark in landmarks),
            "landmark_list": landmarks,
        },
        "init_heading": 0,
        "instruction": "1. Walk on.",
        "milestone_info": _milestone_info(points, landmarks, dest["name"], metres, rng),
    }


def _milestone_info(
    points: Sequence[tuple[float, float]],
    landmarks: Sequence[Mapping[str, Any] | None],
    destination: str,
    metres: Sequence[int],
    rng: random.Random,
) -> str:
    """Blocks that look like JSON and are not; some milestones without a landmark have no such line."""
    text, facing = "", 0
    for number, metre in enumerate(metres):
        heading = int(heading_deg(points[number], points[number + 1]))
        if number == len(metres) - 1:
            landmark = f"The destination {destination} is on your {rng.choice(_SIDES)}"
        else:
            named = landmarks[number]
            landmark = f"{named['name']} is on your {rng.choice(_SIDES)}" if named else "No landmark nearby"
        lines = [
            f'"intersection_idx": "{number + 1}",',
            f'"landmarks": "{landmark}",',
            f'"distance": "{metre} meters",',
            f'"human_heading": "{facing}",',
            f'"to_next_intersection_heading": "{heading} ({compass_word(heading)})",',
        ]
        if landmark == "No landmark nearby" and rng.random() < 0.5:
            del lines[1]
        text += "\n{\n" + "\n".join(lines) + "\n}\n"
        facing = heading
    return text


def _street(
    here: tuple[float, float],
    there: tuple[float, float],
    rng: random.Random,
    mapping: dict[tuple[float, float], str],
) -> None:
    """Panoramas along a street, at both its ends, with a gap of 50 m in a long one."""
    length, heading = distance_m(here, there), heading_deg(here, there)
    gap = (length / 2 - 25, length / 2 + 25) if length > 110 else (0.0, 0.0)
    for end in (here, there):
        mapping.setdefault(end, _pano_id(rng))
    metre = _STREET_M
    while metre < length - 4:
        if not gap[0] < metre < gap[1]:
            lat, lng = offset(offset(here, heading, metre), (heading + 90) % 360, rng.uniform(-2, 2))
            mapping[round(lat, 7), round(lng, 7)] = _pano_id(rng)
        metre += _STREET_M


def _pano_id(rng: random.Random) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(rng.choice(letters) for _ in range(22))


def _place(city: str, rng: random.Random, geocode: tuple[float, float]) -> dict[str, Any]:
    name = f"{rng.choice(_NAMES)} {rng.choice(_KINDS)}"
    return {
        "name": name,
        "geocode": list(geocode),
        "rating": round(rng.uniform(1, 5), 1),
        "place_id": "ChIJ" + _pano_id(rng),
        "distance": rng.uniform(1, 30),
        "n_reviews": rng.randint(0, 4000),
        "heading": rng.uniform(0, 360),
        "photo_reference": None,
        "place_types": ["store", "point_of_interest", "establishment"],
        "plus_code": {"compound_code": f"Q2RC+W9 {city}", "global_code": "87G8Q2RC+W9"},
        "vicinity": f"{rng.randint(1, 400)} Main Street, {city}",
    }


def _panorama(folder: Path, pano_id: str, place: tuple[float, float], rng: random.Random) -> None:
    width, height = _PANORAMA_SIZE
    image = Image.new("RGB", _PANORAMA_SIZE, (120, 170, 220))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, height // 2, width, height), (70, 70, 75))
    for _ in range(6):
        left, top = rng.randrange(width), rng.randrange(height // 4, height // 2)
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        pen.rectangle((left, top, left + width // 9, height // 2), colour)
    image.save(folder / f"{pano_id}.jpg", quality=85)
    metadata = {
        "date": "2022-05",
        "location": {"lat": place[0], "lng": place[1]},
        "pano_id": pano_id,
        "rotation": rng.uniform(0, 360),
        "status": "OK",
    }
    (folder / f"{pano_id}.metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
