"""Points on the globe, directions between them, and compass words.

A point is (latitude, longitude) in degrees. A heading is in degrees clockwise from north, in [0, 360).
Distances are great circles on a sphere (haversine formula).
"""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from sftrl_ext.envs.base import is_number
from sftrl_ext.errors import SftrlError, unknown_name

LatLng = tuple[float, float]
"""Latitude and longitude in degrees."""

EARTH_M = 6_371_008.8
"""Mean radius of the Earth in metres."""

COMPASS: tuple[str, ...] = (
    "north",
    "northeast",
    "east",
    "southeast",
    "south",
    "southwest",
    "west",
    "northwest",
)
"""The eight compass words, clockwise; word ``i`` is the heading ``45 * i``."""


def great_circle_m(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Metres between points.

    Args:
        a: One point, or points in the last axis of an array of shape (..., 2).
        b: The same; the two are broadcast together.

    Returns:
        An array of the broadcast shape without the last axis; of shape () for two points.
    """
    first, second = np.radians(np.asarray(a, dtype=float)), np.radians(np.asarray(b, dtype=float))
    lat_a, lat_b = first[..., 0], second[..., 0]
    # hav(d) = hav(dlat) + cos cos hav(dlng); for antipodes rounding may lift it above 1.
    half = np.sin((lat_b - lat_a) / 2) ** 2
    half = half + np.cos(lat_a) * np.cos(lat_b) * np.sin((second[..., 1] - first[..., 1]) / 2) ** 2
    return np.asarray(2 * EARTH_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def distance_m(a: LatLng, b: LatLng) -> float:
    """Metres between two points."""
    return float(great_circle_m(a, b))


def heading_deg(a: LatLng, b: LatLng) -> float:
    """The heading in which ``b`` lies from ``a``; 0 if they are one point."""
    lat_a, lat_b, turn = math.radians(a[0]), math.radians(b[0]), math.radians(b[1] - a[1])
    # Initial bearing of the great circle; it changes on the way, but not over the length of a street.
    east = math.sin(turn) * math.cos(lat_b)
    north = math.cos(lat_a) * math.sin(lat_b) - math.sin(lat_a) * math.cos(lat_b) * math.cos(turn)
    return wrap(math.degrees(math.atan2(east, north)))


def offset(point: LatLng, heading: float, metres: float) -> LatLng:
    """The point at a distance in a direction, along a great circle."""
    # The spherical triangle with the pole: law of cosines for the latitude, of sines for the longitude.
    angle, course = metres / EARTH_M, math.radians(heading)
    lat, lng = map(math.radians, point)
    new_lat = math.asin(math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(course))
    new_lng = lng + math.atan2(
        math.sin(course) * math.sin(angle) * math.cos(lat),
        math.cos(angle) - math.sin(lat) * math.sin(new_lat),
    )
    return math.degrees(new_lat), (math.degrees(new_lng) + 180.0) % 360.0 - 180.0


def between(a: LatLng, b: LatLng, part: float) -> LatLng:
    """The point at ``part`` (0 to 1) of the way, linear in degrees, the short way round the globe."""
    turn = (b[1] - a[1] + 180.0) % 360.0 - 180.0
    lng = a[1] + part * turn
    return a[0] + part * (b[0] - a[0]), lng if -180.0 <= lng <= 180.0 else (lng + 180.0) % 360.0 - 180.0


def wrap(heading: float) -> float:
    """A heading in [0, 360)."""
    wrapped = heading % 360.0
    return 0.0 if wrapped == 360.0 else wrapped  # -1e-20 % 360 is 360


def turn_deg(old: float, new: float) -> float:
    """The shortest turn from one heading to another, in (-180, 180]; to the right is positive."""
    turn = wrap(new - old)
    return turn - 360.0 if turn > 180.0 else turn


def compass_word(heading: float) -> str:
    """The nearest compass word; half-way between two, the next one clockwise."""
    return COMPASS[int((wrap(heading) + 22.5) // 45.0) % 8]


def compass_heading(word: str) -> float:
    """The heading of a compass word.

    Raises:
        SftrlError: if it is none.
    """
    if word not in COMPASS:
        raise unknown_name("compass word", word, COMPASS)
    return 45.0 * COMPASS.index(word)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: object) -> str:
    """A value as an error shows it: short, whatever it is."""
    return _SHORT.repr(value)


def read_point(value: Any, where: str) -> LatLng:
    """Read a point from JSON.

    Args:
        value: What should be a list of two numbers.
        where: What it is, for the error.

    Raises:
        SftrlError: if it is not a latitude and a longitude.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value)):
        lat, lng = map(float, value)
        if abs(lat) <= 90 and abs(lng) <= 180:
            return lat, lng
    raise SftrlError(
        f"{where} is {shown(value)}; expected [latitude, longitude] in degrees, -90 to 90 and -180 to 180."
    )
