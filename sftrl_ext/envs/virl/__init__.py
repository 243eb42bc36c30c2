"""V-IRL: walk through a city along a list of instructions.

Reading order: `geo`, `routes`, `plain_pickle` and `panoramas` (the authors' files), `track` and `rail` (what
an episode is made of), `street_view` (pictures), `answer`, `verifier`, `prompts`, `episode`, `env`; `city`
makes synthetic data in the authors' formats.
"""

from __future__ import annotations

from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.virl.episode import (
    NavigationEpisode,
    PlaySettings,
    make_facts,
    track_of,
)
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.prompts import PromptTemplate, expert_answer, load_template
from sftrl_ext.envs.virl.rail import ACTION_SPACES, Point, Rail, Turn, build_rail, draw_rail
from sftrl_ext.envs.virl.routes import Milestone, Route, RouteFile, load_routes, write_routes
from sftrl_ext.envs.virl.track import Leg, Track, Waypoint, lay_track, read_track
from sftrl_ext.envs.virl.verifier import grade_response

__all__ = [
    "ACTION_SPACES",
    "Leg",
    "Milestone",
    "NavigationEpisode",
    "PanoramaMap",
    "PlaySettings",
    "Point",
    "PromptTemplate",
    "Rail",
    "Route",
    "RouteFile",
    "Track",
    "Turn",
    "Waypoint",
    "build_rail",
    "draw_rail",
    "expert_answer",
    "facts_text",
    "grade_response",
    "lay_track",
    "load_routes",
    "load_template",
    "make_facts",
    "read_track",
    "track_of",
    "write_routes",
]
