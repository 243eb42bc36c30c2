from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.envs.virl import geo
from sftrl_ext.errors import SftrlError

POINTS = st.tuples(st.floats(-85, 85), st.floats(-179.9, 179.9))


def test_known_distances_and_headings():
    degree = math.pi / 180 * geo.EARTH_M
    assert geo.distance_m((0, 0), (1, 0)) == pytest.approx(degree)
    assert geo.distance_m((60, 0), (60, 1)) == pytest.approx(degree / 2, rel=1e-3)
    assert geo.distance_m((0, 179.5), (0, -179.5)) == pytest.approx(degree)
    assert geo.distance_m((0, 0), (0, 180)) == pytest.approx(math.pi * geo.EARTH_M)
    paris, london = (48.8566, 2.3522), (51.5074, -0.1278)
    assert geo.distance_m(paris, london) == pytest.approx(343_560, rel=1e-3)
    for heading, point in ((0, (1, 0)), (90, (0, 1)), (180, (-1, 0)), (270, (0, -1))):
        assert geo.heading_deg((0, 0), point) == pytest.approx(heading)
    assert geo.heading_deg((3, 4), (3, 4)) == 0


def test_distances_in_bulk():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    bulk = geo.great_circle_m((0.5, 0.5), points)
    assert bulk.shape == (3,)
    assert bulk.tolist() == [geo.distance_m((0.5, 0.5), tuple(point)) for point in points]


@given(POINTS, st.floats(0, 359.999), st.floats(0.1, 5000))
def test_an_offset_is_as_far_and_where_it_should_be(point, heading, metres):
    moved = geo.offset(point, heading, metres)
    assert geo.distance_m(point, moved) == pytest.approx(metres, rel=1e-4, abs=1e-3)
    assert abs(geo.turn_deg(heading, geo.heading_deg(point, moved))) < 0.1


@pytest.mark.parametrize(
    ("heading", "word"),
    [
        (0, "north"),
        (22.4, "north"),
        (22.5, "northeast"),
        (67.5, "east"),
        (298, "northwest"),
        (337.4, "northwest"),
        (337.5, "north"),
        (359.9, "north"),
        (360, "north"),
        (-45, "northwest"),
    ],
)
def test_compass_words(heading, word):
    assert geo.compass_word(heading) == word


def test_words_and_headings_are_inverse():
    assert [geo.compass_word(geo.compass_heading(word)) for word in geo.COMPASS] == list(geo.COMPASS)
    with pytest.raises(SftrlError, match="Did you mean 'northeast'"):
        geo.compass_heading("north-east")


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_turns_are_short(old, new):
    turn = geo.turn_deg(old, new)
    assert -180 < turn <= 180
    assert abs(geo.turn_deg(geo.wrap(old + turn), new)) < 1e-6
    assert 0 <= geo.wrap(old) < 360


def test_the_way_between_crosses_the_date_line():
    assert geo.between((0, 179), (1, -179), 0.75) == (0.75, -179.5)
    assert geo.between((0, 1), (1, 3), 0.5) == (0.5, 2)


@pytest.mark.parametrize(
    "value", [None, 3, "ab", [1], [1, 2, 3], [91, 0], [0, 181], ["1", "2"], [True, 0], [float("nan"), 0]]
)
def test_what_is_no_point(value):
    with pytest.raises(SftrlError, match=r"here is .*; expected \[latitude, longitude\]"):
        geo.read_point(value, "here")
