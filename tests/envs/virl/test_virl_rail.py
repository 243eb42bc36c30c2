from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from virl_examples import CAFE, CORNER, END, MUSEUM, PARK, ROUTE, START, map_along

from sftrl_ext.envs.virl.geo import distance_m, offset
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.rail import (
    INTERSECTION_NOTE,
    NO_LANDMARKS,
    Turn,
    build_rail,
    draw_rail,
    relative_word,
)
from sftrl_ext.envs.virl.routes import NO_LANDMARK, Milestone, Route
from sftrl_ext.envs.virl.track import lay_track, read_track
from sftrl_ext.errors import SftrlError


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_rail_worked_by_hand():
    """Legs of 100 m (points at 20, 40, 60, 80 m), 60 m (12, 24, 36, 48 m) and 4 m (none)."""
    points = build_rail(ROUTE, rng(), drop_rate=0)
    assert [point.action for point in points] == (
        ["turn_direction(north)"]
        + ["forward()"] * 4
        + ["turn_direction(east)"]
        + ["forward()"] * 4
        + ["turn_direction(south)", "stop()"]
    )
    assert [round(distance_m(START, point.geocode)) for point in points[:6]] == [0, 20, 40, 60, 80, 100]
    assert [round(distance_m(CORNER, point.geocode)) for point in points[5:11]] == [0, 12, 24, 36, 48, 60]
    assert (points[5].geocode, points[10].geocode, points[11].geocode) == (CORNER, PARK, END)
    assert [point.heading for point in points] == [350.0] + [0.0] * 5 + [90.0] * 5 + [180.0]
    note = f"; {INTERSECTION_NOTE}"
    assert [point.observation for point in points] == (
        [NO_LANDMARKS] * 5 + [CAFE + note] + [NO_LANDMARKS] * 4 + [NO_LANDMARKS + note, MUSEUM]
    )
    assert [i for i, point in enumerate(points) if point.at_intersection] == [5, 10]
    assert [point.instruction for point in points] == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5]


def test_the_same_rail_as_the_authors_have_it():
    points = build_rail(ROUTE, rng(), drop_rate=0, profile="authors", action_space="relative")
    turns = [point.action for point in points if point.action.startswith("turn")]
    assert turns == ["turn_direction(left)", "turn_direction(right)", "turn_direction(right)"]
    assert points[0].observation == "No landmarks nearby; "
    assert points[5].observation == f"{CAFE}; {INTERSECTION_NOTE}"
    assert points[10].observation == f"{NO_LANDMARK}; {INTERSECTION_NOTE}"
    assert points[11].observation == f"{MUSEUM}; "


@pytest.mark.parametrize(
    ("last", "following", "exact", "authors"),
    [
        (350, 0, "slightly right", "left"),
        (0, 350, "slightly left", "right"),
        (10, 350, "slightly left", "right"),
        (300, 20, "right", "left"),
        (20, 300, "left", "right"),
        (0, 45, "slightly right", "slightly right"),
        (0, 46, "right", "right"),
        (45, 0, "slightly left", "slightly left"),
        (46, 0, "left", "left"),
        (90, 90, "slightly left", "slightly left"),
        (0, 180, "right", "right"),
        (180, 0, "right", "left"),
        (270, 0, "right", "left"),
        (0, 270, "left", "right"),
    ],
)
def test_relative_words(last, following, exact, authors):
    assert relative_word(last, following) == exact
    assert relative_word(last, following, "authors") == authors


@pytest.mark.parametrize(
    ("profile", "words"),
    [("exact", ["slightly right", "right", "right"]), ("authors", ["left", "right", "right"])],
)
def test_turns(profile, words):
    rail = draw_rail(lay_track(ROUTE), rng(), action_space="relative", profile=profile)
    assert [turn.relative for turn in rail.turns] == words
    assert [turn.absolute for turn in rail.turns] == ["north", "east", "south"]
    assert rail.turns[2] == Turn("right", "south", MUSEUM, True)
    assert [turn.word("absolute") for turn in rail.turns] == ["north", "east", "south"]
    assert rail.points[0].action == f"turn_direction({words[0]})"


def test_points_are_dropped_by_the_seed():
    track = lay_track(ROUTE)
    counts = Counter()
    for seed in range(400):
        points = draw_rail(track, rng(seed)).points
        assert points == draw_rail(track, rng(seed)).points
        counts[len(points)] += 1
        assert set(points) <= set(draw_rail(track, rng(seed), drop_rate=0).points)
    assert set(counts) <= set(range(4, 13))
    mean = sum(count * times for count, times in counts.items()) / 400
    assert mean == pytest.approx(4 + 8 / 2, abs=0.25)
    assert len(draw_rail(track, rng(), drop_rate=1).points) == 4


def test_a_random_heading_is_drawn_once_per_episode():
    track = lay_track(replace(ROUTE, init_heading=None))
    headings = [draw_rail(track, rng(seed)).points[0].heading for seed in range(200)]
    assert all(0 <= heading < 360 and heading.is_integer() for heading in headings)
    assert len(set(headings)) > 100
    fixed, free = (draw_rail(lay_track(r), rng(5)) for r in (ROUTE, replace(ROUTE, init_heading=None)))
    assert [point.geocode for point in fixed.points] == [point.geocode for point in free.points]


def test_points_move_to_panoramas():
    places = map_along()
    shifted = PanoramaMap([(offset(point, 45, 3), pano) for point, pano in places.places.items()])
    points = build_rail(ROUTE, rng(), drop_rate=0, panoramas=shifted)
    plain = build_rail(ROUTE, rng(), drop_rate=0)
    assert len(points) == len(plain)
    for point, other in zip(points, plain, strict=True):
        assert shifted.places[point.geocode] == point.pano_id
        assert distance_m(point.geocode, other.geocode) < 8
    assert all(point.pano_id is None for point in plain)


def test_points_near_the_ends_of_a_leg_are_left_out():
    far = offset(START, 0, 40)
    route = Route(0, START, 0.0, (Milestone(far, 0.0, "north"),))
    points = build_rail(route, rng(), drop_rate=0)  # 8, 16, 24, 32 m; not more than 8 m from both ends
    assert [round(distance_m(START, point.geocode)) for point in points] == [0, 16, 24, 40]
    sparse = PanoramaMap({START: "a", offset(START, 0, 12): "b", offset(START, 0, 33): "c", far: "d"})
    points = build_rail(route, rng(), drop_rate=0, panoramas=sparse)
    assert [point.pano_id for point in points] == ["a", "b", "b", "d"]
    for metres, between in ((4.9, 0), (17.0, 3)):
        route = Route(0, START, 0.0, (Milestone(offset(START, 0, metres), 0.0, "north"),))
        track = lay_track(route, points_per_leg=100)
        assert (len(track.legs[0].between) > 0) == (between > 0)
    assert len(build_rail(route, rng(), points_per_leg=0)) == 2


def test_a_missing_panorama_is_an_error_or_left_out():
    ends = PanoramaMap({START: "a", CORNER: "b", PARK: "c", END: "d"}, "ends.pkl")
    words = "route 0: point 2 of 5 before milestone 0 .* no panorama less than 20 m away in ends.pkl"
    with pytest.raises(SftrlError, match=words + ".*'skip'"):
        lay_track(ROUTE, ends)
    track = lay_track(ROUTE, ends, missing="skip")
    assert [waypoint.pano_id for waypoint in track.waypoints] == ["a", "b", "c", "d"]
    none = PanoramaMap({START: "a"})
    for missing in ("error", "skip"):
        with pytest.raises(SftrlError, match="route 0: milestone 0 at .* has no panorama") as error:
            lay_track(replace(ROUTE, milestones=ROUTE.milestones), none, missing=missing)
        assert "skip" not in str(error.value)
    with pytest.raises(SftrlError, match="the start at .* has no picture of its panorama 'a'"):
        lay_track(ROUTE, ends, usable=lambda pano: pano != "a")
    with pytest.raises(SftrlError, match="Did you mean 'skip'"):
        lay_track(ROUTE, missing="skp")


def test_a_track_survives_json():
    for panoramas in (None, map_along()):
        track = lay_track(ROUTE, panoramas)
        assert read_track(json.loads(json.dumps(track.facts()))) == track
        assert len(track.waypoints) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: 3, "the fact 'route' is 3, expected an object"),
        (lambda facts: {}, "'index' is missing; found nothing"),
        (lambda facts: facts | {"legs": []}, r"'legs' is \[\], expected a list of legs"),
        (lambda facts: facts | {"legs": "abc"}, "'legs' is 'abc'"),
        (lambda facts: facts | {"index": "1"}, "'index' is '1'"),
        (lambda facts: facts | {"init_heading": 360}, "'init_heading' is 360, expected degrees"),
        (lambda facts: facts | {"start": [1, 2]}, r"'start' is \[1, 2\], expected"),
        (lambda facts: facts | {"start": [1, 2000, None]}, "'start' is"),
        (lambda facts: facts | {"start": [1, 2, "../x"]}, "'start' has the panorama id"),
        (lambda facts: facts | {"strat": 1}, "Did you mean 'start'"),
        (lambda facts: facts | {"legs": [3]}, "leg 0 is 3"),
        (lambda facts: facts | {"legs": [facts["legs"][0] | {"compass": "nroth"}]}, "leg 0: .*'north'"),
        (lambda facts: facts | {"legs": [facts["legs"][0] | {"landmark": 3}]}, "leg 0: 'landmark' is 3"),
        (lambda facts: facts | {"legs": [facts["legs"][0] | {"between": 3}]}, "leg 0: 'between' is 3"),
        (lambda facts: facts | {"legs": [facts["legs"][0] | {"between": [3]}]}, r"'between'\[0\] is 3"),
        (lambda facts: facts | {"legs": [facts["legs"][0] | {"heading": None}]}, "leg 0: 'heading' is None"),
    ],
)
def test_what_is_wrong_in_a_track_is_named(change, words):
    with pytest.raises(SftrlError, match=words):
        read_track(change(lay_track(ROUTE).facts()))


def test_what_is_wrong_in_settings_is_named():
    track = lay_track(ROUTE)
    for options, words in (
        ({"action_space": "relativ"}, "Did you mean 'relative'"),
        ({"profile": "author"}, "Did you mean 'authors'"),
        ({"drop_rate": 1.5}, "drop_rate is 1.5"),
        ({"drop_rate": True}, "drop_rate is True"),
    ):
        with pytest.raises(SftrlError, match=words):
            draw_rail(track, rng(), **options)
    for bad in (-1, 2.5, True):
        with pytest.raises(SftrlError, match="points_per_leg is"):
            lay_track(ROUTE, points_per_leg=bad)
