"""Routes that tests walk, and files of them."""

from __future__ import annotations

import json

from sftrl_ext.envs.virl.geo import offset
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import Milestone, Route

START = (40.7, -74.0)
CORNER = offset(START, 0, 100)
PARK = offset(CORNER, 90, 60)
END = offset(PARK, 180, 4)

CAFE = "Corner Cafe is on your left"
MUSEUM = "City Museum is on your right"

ROUTE = Route(
    index=0,
    start=START,
    init_heading=350.0,
    milestones=(
        Milestone(CORNER, 0.0, "north", CAFE, 100.0),
        Milestone(PARK, 90.0, "east", None, 60.0),
        Milestone(END, 180.0, "south", MUSEUM, 4.0),
    ),
    destination="City Museum",
)


def map_along(route: Route = ROUTE) -> PanoramaMap:
    """A panorama every 5 m along a route, and at its milestones."""
    places, last, number = {}, route.start, 0
    for milestone in route.milestones:
        for metres in range(0, 100, 5):
            if milestone.distance_m and metres < milestone.distance_m:
                places[offset(last, milestone.heading_next, metres)] = f"pano{number}"
                number += 1
        places[milestone.geocode] = f"pano{number}"
        number += 1
        last = milestone.geocode
    return PanoramaMap(places)


BLOCK = """{
"intersection_idx": "0",
"landmarks": "Corner Cafe is on your left",
"distance": "50 meters",
"human_heading": "12",
"to_next_intersection_heading": "298 (northwest)",
}"""


def entry(**changes):
    """A route as the authors' file has it."""
    return {
        "start_place": {"relocated_geocode": [40.7, -74.0], "name": "somewhere"},
        "dest_place": {"name": "City Museum", "geocode": [40.71, -74.01]},
        "init_heading": 12,
        "milestone_info": BLOCK + "\n" + BLOCK,
        "route_results": {"geocode_list": [[40.701, -74.0], [40.702, -74.001]], "landmark_list": [None]},
        "instruction": "unused",
    } | changes


def answer(observation: str, action: str, instruction: str = "go on") -> str:
    """A response in the form asked for."""
    return json.dumps(
        {"current observation": observation, "current instruction": instruction, "action": action}
    )
