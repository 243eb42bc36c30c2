"""City of a route, by where it starts: the nine cities of the V-IRL mini benchmark.

The authors' route files name no city. A route that starts near none of these has the name of its folder.
"""

from __future__ import annotations

from collections.abc import Mapping

from sftrl_ext.envs.virl.geo import LatLng, distance_m

CITIES: Mapping[str, LatLng] = {
    "Buenos Aires": (-34.60, -58.38),
    "Hong Kong": (22.32, 114.17),
    "Lagos": (6.52, 3.38),
    "London": (51.51, -0.12),
    "Melbourne": (-37.81, 144.96),
    "Milan": (45.46, 9.19),
    "New Delhi": (28.61, 77.21),
    "New York": (40.74, -73.97),
    "San Francisco": (37.77, -122.44),
}
"""City to a point near its centre."""

WITHIN_M = 60_000.0
"""Farthest from the centre that a route of a city starts, in metres."""


def nearest_city(point: LatLng) -> str:
    """The city that a point lies in or near; "" if it is none of `CITIES`."""
    metres, name = min((distance_m(point, centre), name) for name, centre in CITIES.items())
    return name if metres <= WITHIN_M else ""
