"""A track: a route with all its waypoints, where points of a rail may stand, as facts hold it.

Between two milestones points may stand at equal parts of the leg. Start, milestones and points are each moved
to the nearest panorama, if there is a map of panoramas; a point less than `MIN_GAP_M` from an end of its leg
is left out, and a leg shorter than `MIN_LEG_M` has none. A track is all that an episode needs of a route, so
facts hold it instead of the names of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftrl_ext.envs.base import is_number
from sftrl_ext.envs.virl.geo import COMPASS, LatLng, between, distance_m, read_point, shown
from sftrl_ext.envs.virl.panoramas import WITHIN_M, PanoramaMap, check_pano_id
from sftrl_ext.envs.virl.routes import Route
from sftrl_ext.errors import SftrlError, unknown_name

POINTS_PER_LEG = 5
"""Into how many equal parts a leg is cut: there may be a point at the end of each."""

MIN_GAP_M = 8.0
"""A point stands more than this far from both ends of its leg, in metres."""

MIN_LEG_M = 5.0
"""A leg of at most this length has no points between, in metres."""

MISSING: tuple[str, ...] = ("error", "skip")
"""Treatment of a point between milestones without a panorama: an error, or left out."""


@dataclass(frozen=True)
class Waypoint:
    """Coordinates and the panorama taken there; None if none was looked up."""

    geocode: LatLng
    pano_id: str | None = None


@dataclass(frozen=True)
class Leg:
    """The way to one milestone.

    Attributes:
        heading: Its heading in degrees.
        compass: The compass word of that heading.
        landmark: What is at its end, as a clause; None if nothing.
        between: Where points may stand on the way.
        end: The milestone.
    """

    heading: float
    compass: str
    landmark: str | None
    between: tuple[Waypoint, ...]
    end: Waypoint


@dataclass(frozen=True)
class Track:
    """A route with every waypoint, where a point may stand.

    Attributes:
        index: Index of the route in its file.
        init_heading: Where the traveller looks at first; None for a random heading.
        start: Where it begins.
        legs: The legs; the last one ends at the destination.
        city: Name of the route's city; may be empty.
    """

    index: int
    init_heading: float | None
    start: Waypoint
    legs: tuple[Leg, ...]
    city: str = ""

    @property
    def waypoints(self) -> tuple[Waypoint, ...]:
        """Every waypoint of the track, in order."""
        return (self.start, *(waypoint for leg in self.legs for waypoint in (*leg.between, leg.end)))

    def facts(self) -> dict[str, Any]:
        """The track as JSON; `read_track` reads it back equal."""
        legs = [
            {
                "heading": leg.heading,
                "compass": leg.compass,
                "landmark": leg.landmark,
                "between": [_waypoint_facts(waypoint) for waypoint in leg.between],
                "end": _waypoint_facts(leg.end),
            }
            for leg in self.legs
        ]
        return {
            "index": self.index,
            "init_heading": self.init_heading,
            "start": _waypoint_facts(self.start),
            "legs": legs,
            **({"city": self.city} if self.city else {}),
        }


def lay_track(
    route: Route,
    panoramas: PanoramaMap | None = None,
    *,
    points_per_leg: int = POINTS_PER_LEG,
    missing: str = "error",
    usable: Callable[[str], bool] | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> Track:
    """Find every waypoint of a route, where a point may stand.

    Args:
        route: The route.
        panoramas: Where there are panoramas; None to stay where the route goes.
        points_per_leg: Into how many parts a leg is cut.
        missing: "error" or "skip": what a point between milestones without a panorama is. A start or a
            milestone without one is an error always, since nothing can be left out there.
        usable: Says of a panorama id whether its picture is there; one that is not counts as missing.
        on_skip: Takes a sentence for each point that is left out because its panorama is missing.

    Raises:
        SftrlError: naming the route and the point, if a panorama is missing.
    """
    if isinstance(points_per_leg, bool) or not isinstance(points_per_leg, int) or points_per_leg < 0:
        raise SftrlError(f"points_per_leg is {shown(points_per_leg)}, expected a whole number >= 0.")
    if missing not in MISSING:
        raise unknown_name("missing_panorama", missing, MISSING)

    def move(point: LatLng, what: str, needed: bool) -> Waypoint | None:
        if panoramas is None:
            return Waypoint(point)
        nearest = panoramas.nearest(point)
        if nearest is not None and (usable is None or usable(nearest[1])):
            return Waypoint(*nearest)
        reason = (
            f"no panorama less than {WITHIN_M:g} m away in {panoramas.where}"
            if nearest is None
            else f"no picture of its panorama {nearest[1]!r}"
        )
        sentence = f"route {route.index}: {what} at {point} has {reason}"
        if not needed and missing == "skip":
            if on_skip is not None:
                on_skip(f"{sentence}.")
            return None
        hint = "" if needed else "; missing_panorama='skip' leaves such points out"
        raise SftrlError(f"{sentence}{hint}.")

    start = move(route.start, "the start", True)
    assert start is not None
    legs: list[Leg] = []
    last = start
    for number, milestone in enumerate(route.milestones):
        end = move(milestone.geocode, f"milestone {number}", True)
        assert end is not None
        here: list[Waypoint] = []
        if distance_m(last.geocode, end.geocode) > MIN_LEG_M:
            for part in range(1, points_per_leg + 1):
                point = between(last.geocode, end.geocode, part / points_per_leg)
                if panoramas is None and part == points_per_leg:
                    continue  # the end itself
                waypoint = move(point, f"point {part} of {points_per_leg} before milestone {number}", False)
                if waypoint is not None and all(
                    distance_m(waypoint.geocode, side.geocode) > MIN_GAP_M for side in (last, end)
                ):
                    here.append(waypoint)
        legs.append(Leg(milestone.heading_next, milestone.compass, milestone.landmark, tuple(here), end))
        last = end
    return Track(route.index, route.init_heading, start, tuple(legs), route.city)


def read_track(facts: Any) -> Track:
    """Read a track from the JSON of `Track.facts`.

    Raises:
        SftrlError: naming the field, what was found and what was expected.
    """
    where = "the fact 'route'"
    _keys(facts, ("index", "init_heading", "start", "legs"), where, ("city",))
    index, heading, city = facts["index"], facts["init_heading"], facts.get("city", "")
    if not isinstance(city, str):
        raise SftrlError(f"{where}: 'city' is {shown(city)}, expected a text.")
    if isinstance(index, bool) or not isinstance(index, int):
        raise SftrlError(f"{where}: 'index' is {shown(index)}, expected a whole number.")
    if heading is not None:
        heading = _heading(heading, f"{where}: 'init_heading'")
    legs = facts["legs"]
    if not isinstance(legs, Sequence) or isinstance(legs, str) or not legs:
        raise SftrlError(f"{where}: 'legs' is {shown(legs)}, expected a list of legs.")
    start = _waypoint(facts["start"], f"{where}: 'start'")
    read = tuple([_leg(leg, f"{where}: leg {i}") for i, leg in enumerate(legs)])
    return Track(index, heading, start, read, city)


def _leg(facts: Any, where: str) -> Leg:
    _keys(facts, ("heading", "compass", "landmark", "between", "end"), where)
    landmark, waypoints = facts["landmark"], facts["between"]
    if facts["compass"] not in COMPASS:
        raise SftrlError(f"{where}: {unknown_name('compass word', facts['compass'], COMPASS)}")
    if landmark is not None and not isinstance(landmark, str):
        raise SftrlError(f"{where}: 'landmark' is {shown(landmark)}, expected a text or null.")
    if not isinstance(waypoints, Sequence) or isinstance(waypoints, str):
        raise SftrlError(f"{where}: 'between' is {shown(waypoints)}, expected a list of waypoints.")
    return Leg(
        _heading(facts["heading"], f"{where}: 'heading'"),
        facts["compass"],
        landmark or None,
        tuple([_waypoint(waypoint, f"{where}: 'between'[{i}]") for i, waypoint in enumerate(waypoints)]),
        _waypoint(facts["end"], f"{where}: 'end'"),
    )


def _keys(facts: Any, keys: Sequence[str], where: str, optional: Sequence[str] = ()) -> None:
    if not isinstance(facts, Mapping):
        raise SftrlError(f"{where} is {shown(facts)}, expected an object.")
    for key in keys:
        if key not in facts:
            raise SftrlError(f"{where}: {key!r} is missing; found {', '.join(map(str, facts)) or 'nothing'}.")
    for key in facts:
        if key not in keys and key not in optional:
            raise SftrlError(f"{where}: {unknown_name('field', key, [*keys, *optional])}")


def _heading(value: Any, where: str) -> float:
    if not is_number(value) or not 0 <= value < 360:
        raise SftrlError(f"{where} is {shown(value)}, expected degrees from 0 to below 360.")
    return float(value)


def _waypoint_facts(waypoint: Waypoint) -> list[Any]:
    return [*waypoint.geocode, waypoint.pano_id]


def _waypoint(value: Any, where: str) -> Waypoint:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise SftrlError(f"{where} is {shown(value)}, expected [latitude, longitude, panorama id or null].")
    point = read_point(list(value[:2]), where)
    return Waypoint(point, None if value[2] is None else check_pano_id(value[2], where))
