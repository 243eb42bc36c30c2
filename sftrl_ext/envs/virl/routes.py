r"""Routes, and the authors' file of routes (``route_infos.json``).

The file is ``[routes, n]``, where n counts the destinations that the crawler tried, most of them without a
route; it is not read. Of a route these fields are read: ``start_place.relocated_geocode``, ``init_heading``
(0 or absent: a random one in every episode), ``route_results.geocode_list`` (one point per milestone),
``dest_place.name``, ``city`` (in our own files only), and ``milestone_info``, which is one text of blocks,
one per milestone, that look like JSON and are not::

    {
    "intersection_idx": "0",
    "landmarks": "Corner Bakery is on your left",
    "distance": "50 meters",
    "human_heading": "12",
    "to_next_intersection_heading": "298 (northwest)",
    }

Block ``i`` tells of the way to milestone ``i``: its length and heading, and the landmark at its end.
``landmarks`` may be absent, or say that there is none. Other keys are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftrl_ext.envs.base import is_number
from sftrl_ext.envs.virl.geo import (
    COMPASS,
    LatLng,
    compass_heading,
    compass_word,
    read_point,
    shown,
    turn_deg,
    wrap,
)
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_text

NO_LANDMARK = "No landmark nearby"
"""Text in the file for a milestone without a landmark."""

_NO_LANDMARK = re.compile(r"(there (is|are) )?no landmarks?( nearby| around| here)?\.?", re.IGNORECASE)
# The texts are not escaped: a quote ends one only where the pair ends too.
_PAIR = re.compile(
    r"""(["'])(?P<key>[^"'\n]*)\1[ \t]*:[ \t]*"""
    r"""(?:(["'])(?P<text>[^\n]*?)\3(?=[ \t]*,?[ \t]*(?:[}\r\n]|$|"[\w ]+"[ \t]*:))"""
    r"""|(?P<bare>[^"'\n,{}]*))"""
)
_SPACE = re.compile(r"[\s,]*")
_HEADING = re.compile(r"(-?\d{1,4}(?:\.\d{1,20})?(?:e-?\d{1,3})?)\s*\(\s*([A-Za-z]+)\s*\)")
_DISTANCE = re.compile(r"(\d{1,9}(?:\.\d{1,20})?(?:e-?\d{1,3})?)\s*(?:m|meters?|metres?)?")
# Greatest angle between a heading and its compass word, in degrees; the nearest word is at most 22.5 away.
_MOST_OFF = 45.0


@dataclass(frozen=True)
class Milestone:
    """The end of one leg of a route, and the way there.

    Attributes:
        geocode: Where it is.
        heading_next: The heading of the leg that ends here, called so because it is how one goes on to here.
        compass: The compass word of that heading.
        landmark: What is there to see, as a clause such as "Corner Bakery is on your left"; None if nothing.
        distance_m: Length of the leg as the file says it, if it does.
    """

    geocode: LatLng
    heading_next: float
    compass: str
    landmark: str | None = None
    distance_m: float | None = None


@dataclass(frozen=True)
class Route:
    """One way from a start over milestones, the last of which is the destination.

    Attributes:
        index: Its place in the file.
        start: Where it begins.
        init_heading: Where the traveller looks at first; None for a random heading in every episode.
        milestones: At least one.
        destination: Name of the place where it ends; may be empty.
        city: Name of its city; may be empty.
    """

    index: int
    start: LatLng
    init_heading: float | None
    milestones: tuple[Milestone, ...]
    destination: str = ""
    city: str = ""

    def cut(self, most_legs: int) -> Route:
        """The route up to its milestone number ``most_legs``, which becomes its destination.

        Raises:
            SftrlError: if ``most_legs`` is below 1.
        """
        if most_legs < 1:
            raise SftrlError(f"most_legs is {most_legs}; expected 1 or more.")
        if len(self.milestones) <= most_legs:
            return self
        return replace(self, milestones=self.milestones[:most_legs], destination="")


@dataclass(frozen=True)
class RouteFile:
    """Routes read from a file.

    Attributes:
        routes: The good routes, in order; ``Route.index`` is the place in the file.
        problems: One sentence for each bad route that was skipped.
    """

    routes: tuple[Route, ...]
    problems: tuple[str, ...] = ()

    def route(self, index: int) -> Route:
        """The route with this index.

        Raises:
            SftrlError: if there is none, or it was skipped.
        """
        for route in self.routes:
            if route.index == index:
                return route
        indices = [route.index for route in self.routes]
        raise SftrlError(
            f"there is no route {shown(index)}; found {len(indices)} routes, {indices[0]} to {indices[-1]}."
        )


def load_routes(path: str | Path, skip_bad: bool = False) -> RouteFile:
    """Read a file of routes.

    Args:
        path: The file.
        skip_bad: Keep the good routes and list what is wrong with the others, instead of an error.

    Raises:
        SftrlError: naming file, route and field, what was found and what was expected; also if no route is
            good.
    """
    path = Path(path)
    try:
        data = read_json(path)
    except RecursionError:
        raise SftrlError(f"{path}: not a JSON file (nested too deeply).") from None
    except OSError as error:
        raise SftrlError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(data, list) or len(data) != 2 or not isinstance(data[0], list):
        kind = f"a list of {len(data)}" if isinstance(data, list) else type(data).__name__
        raise SftrlError(f"{path}: expected [routes, the crawler's counter], found {kind}.")
    entries = data[0]
    routes: list[Route] = []
    problems: list[str] = []
    for index, entry in enumerate(entries):
        if problems and not skip_bad:
            break
        try:
            routes.append(_read_route(entry, index, f"{path}: route {index}"))
        except SftrlError as error:
            problems.append(str(error))
    if problems and not skip_bad:
        raise SftrlError(problems[0])
    if not routes:
        reason = f"; the first problem: {problems[0]}" if problems else ""
        raise SftrlError(f"{path}: no good route among {len(entries)}{reason}")
    return RouteFile(tuple(routes), tuple(problems))


def _field(entry: Any, where: str, *names: str) -> Any:
    """A field of a field of a record."""
    for name in names:
        if not isinstance(entry, Mapping) or name not in entry:
            keys = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
            raise SftrlError(
                f"{where}: field {'.'.join(names)!r} is missing: no {name!r} in {keys[:200] or '{}'}."
            )
        entry = entry[name]
    return entry


def _read_route(entry: Any, index: int, where: str) -> Route:
    if not isinstance(entry, Mapping):
        raise SftrlError(f"{where}: expected an object, found {shown(entry)}.")
    start = read_point(
        _field(entry, where, "start_place", "relocated_geocode"),
        f"{where}: field 'start_place.relocated_geocode'",
    )
    heading = entry.get("init_heading", 0)
    heading = 0 if heading is None else heading
    if not is_number(heading) or not -360 <= heading <= 360:
        raise SftrlError(
            f"{where}: field 'init_heading' is {shown(heading)}; expected degrees, or 0 for a random one."
        )
    geocodes = _field(entry, where, "route_results", "geocode_list")
    if not isinstance(geocodes, list) or not geocodes:
        raise SftrlError(
            f"{where}: field 'route_results.geocode_list' is {shown(geocodes)}; "
            "expected a list of points, one per milestone."
        )
    field = f"{where}: field 'route_results.geocode_list"
    points = [read_point(geocode, f"{field}[{i}]'") for i, geocode in enumerate(geocodes)]
    blocks = _read_blocks(_field(entry, where, "milestone_info"), f"{where}: field 'milestone_info'")
    if len(blocks) != len(points):
        raise SftrlError(
            f"{where}: field 'milestone_info' has {len(blocks)} blocks; expected {len(points)}, "
            "one for each point of 'route_results.geocode_list'."
        )
    milestones = [
        _read_milestone(block, point, f"{where}: field 'milestone_info', block {i}")
        for i, (block, point) in enumerate(zip(blocks, points, strict=True))
    ]
    destination = entry.get("dest_place") or {}
    name = destination.get("name", "") if isinstance(destination, Mapping) else None
    if not isinstance(name, (str, type(None))) or not isinstance(destination, Mapping):
        raise SftrlError(f"{where}: field 'dest_place.name' is {shown(destination)}; expected a text.")
    city = entry.get("city", "")
    if not isinstance(city, str):
        raise SftrlError(f"{where}: field 'city' is {shown(city)}; expected a text.")
    init_heading = None if heading == 0 else wrap(float(heading))
    return Route(index, start, init_heading, tuple(milestones), name or "", city)


def _read_blocks(text: Any, where: str) -> list[dict[str, str]]:
    """The blocks of a ``milestone_info``, as texts."""
    if not isinstance(text, str):
        raise SftrlError(f"{where} is {shown(text)}; expected a text of blocks in braces.")
    blocks: list[dict[str, str]] = []
    opened = False
    position = _skip(text, 0)
    while position < len(text):
        sign = text[position]
        if sign == "{" and not opened:
            blocks.append({})
            opened = True
            position += 1
        elif sign == "}" and opened:
            opened = False
            position += 1
        else:
            pair = _PAIR.match(text, position) if opened else None
            if pair is None:
                wanted = "'\"key\": \"value\"' or '}'" if opened else "'{'"
                raise SftrlError(
                    f"{where}, block {max(0, len(blocks) - opened)}: expected {wanted}, "
                    f"found {text[position : position + 40]!r}."
                )
            value = pair["text"] if pair["text"] is not None else pair["bare"]
            blocks[-1][pair["key"].strip()] = value.strip()
            position = pair.end()
        position = _skip(text, position)
    if opened:
        raise SftrlError(f"{where}, block {len(blocks) - 1}: expected '}}' at the end, found none.")
    return blocks


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _read_milestone(block: Mapping[str, str], geocode: LatLng, where: str) -> Milestone:
    name = "to_next_intersection_heading"
    if name not in block:
        raise SftrlError(f"{where}: {name!r} is missing; found {', '.join(block) or 'nothing'}.")
    match = _HEADING.fullmatch(block[name])
    word = match[2].lower() if match else ""
    if match is None or word not in COMPASS or not -360 <= float(match[1]) <= 360:
        raise SftrlError(
            f"{where}: {name!r} is {shown(block[name])}; expected degrees and a compass word, "
            "such as '298 (northwest)'."
        )
    heading = wrap(float(match[1]))
    if abs(turn_deg(heading, compass_heading(word))) > _MOST_OFF:
        raise SftrlError(
            f"{where}: {name!r} is {block[name]!r}, but {heading:g} degrees are {compass_word(heading)}."
        )
    distance = None
    if block.get("distance"):
        length = _DISTANCE.fullmatch(block["distance"])
        if length is None:
            raise SftrlError(
                f"{where}: 'distance' is {shown(block['distance'])}; expected metres, such as '50 meters'."
            )
        distance = float(length[1])
    landmark = block.get("landmarks", "")
    if not landmark or _NO_LANDMARK.fullmatch(landmark):
        return Milestone(geocode, heading, word, None, distance)
    return Milestone(geocode, heading, word, landmark, distance)


def write_routes(path: str | Path, routes: Sequence[Route]) -> None:
    """Write routes in the authors' format; `load_routes` reads them back equal.

    A heading of exactly 0 at the start is written as 360, because 0 means a random one. Routes are numbered
    by their place in the file, so their ``index`` should be that.

    Raises:
        SftrlError: if a text of a route cannot be written (it holds a line break).
    """
    entries = [_entry(route) for route in routes]
    write_text(Path(path), json.dumps([entries, len(entries)], ensure_ascii=False, indent=1) + "\n")


def _entry(route: Route) -> dict[str, Any]:
    if not route.milestones:
        raise SftrlError(f"route {route.index} has no milestone; expected at least one.")
    end = list(route.milestones[-1].geocode)
    heading: float = 0 if route.init_heading is None else route.init_heading or 360.0
    named = [
        {"name": milestone.landmark, "geocode": list(milestone.geocode)} if milestone.landmark else None
        for milestone in route.milestones
    ]
    return {
        **({"city": route.city} if route.city else {}),
        "start_place": {"relocated_geocode": list(route.start)},
        "dest_place": {"name": route.destination, "geocode": end},
        "init_heading": heading,
        "milestone_info": "\n".join(_block_lines(route)),
        "route_results": {
            "geocode_list": [list(m.geocode) for m in route.milestones],
            "landmark_list": named[:-1],
        },
    }


def _block_lines(route: Route) -> Iterator[str]:
    facing = route.init_heading or 0.0
    for number, milestone in enumerate(route.milestones):
        landmark = milestone.landmark or NO_LANDMARK
        named = milestone.landmark is None or not _NO_LANDMARK.fullmatch(landmark)
        if landmark != " ".join(landmark.split()) or not named:
            raise SftrlError(
                f"route {route.index}, milestone {number}: landmark {landmark!r} cannot be written; expected "
                "one line without double blanks that names a landmark."
            )
        yield "{"
        yield f'"intersection_idx": "{number}",'
        yield f'"landmarks": "{landmark}",'
        if milestone.distance_m is not None:
            yield f'"distance": "{_digits(milestone.distance_m)} meters",'
        yield f'"human_heading": "{_digits(facing)}",'
        yield f'"to_next_intersection_heading": "{_digits(milestone.heading_next)} ({milestone.compass})",'
        yield "}"
        facing = milestone.heading_next


def _digits(number: float) -> str:
    """A number with all its digits, without a point if it is whole."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))
