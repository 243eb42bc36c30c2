from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virl_examples import BLOCK, ROUTE, entry

from sftrl_ext.envs.virl.geo import COMPASS, compass_heading, wrap
from sftrl_ext.envs.virl.routes import Milestone, Route, load_routes, write_routes
from sftrl_ext.errors import SftrlError


@pytest.fixture
def load(tmp_path):
    def load(entries, count=None, **options):
        path = tmp_path / "route_infos.json"
        count = len(entries) if count is None else count
        path.write_text(json.dumps([entries, count]), encoding="utf-8")
        return load_routes(path, **options)

    return load


def test_a_file_of_the_authors(load):
    (route,) = load([entry()]).routes
    assert (route.index, route.start, route.init_heading) == (0, (40.7, -74.0), 12.0)
    assert route.destination == "City Museum"
    first = Milestone((40.701, -74.0), 298.0, "northwest", "Corner Cafe is on your left", 50.0)
    assert route.milestones[0] == first
    assert route.milestones[1].geocode == (40.702, -74.001)


@pytest.mark.parametrize("heading", [0, None, 0.0])
def test_no_initial_heading_is_a_random_one(load, heading):
    assert load([entry(init_heading=heading)]).routes[0].init_heading is None
    without = entry()
    del without["init_heading"]
    assert load([without]).routes[0].init_heading is None
    assert load([entry(init_heading=360)]).routes[0].init_heading == 0


@pytest.mark.parametrize(
    "text",
    [
        "No landmark nearby",
        "No landmarks nearby",
        "no landmark nearby.",
        "There is no landmark nearby",
        "",
        None,
    ],
)
def test_a_block_may_have_no_landmark(load, text):
    line = '"landmarks": "Corner Cafe is on your left",\n'
    block = BLOCK.replace(line, "" if text is None else f'"landmarks": "{text}",\n')
    route = load([entry(milestone_info=block + BLOCK)]).routes[0]
    assert [milestone.landmark is None for milestone in route.milestones] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("}\n{", "},\n\n{"),
        lambda text: text.replace("}\n{", "}{"),
        lambda text: text.replace('"', "'"),
        lambda text: text.replace('",\n}', '"\n}'),
        lambda text: text.replace('"50 meters"', "50 meters"),
        lambda text: text.replace('"distance": "50 meters",', '"other": "{x: y}", "distance": "50"'),
        lambda text: text.replace('{\n"inter', '{ "inter').replace(",\n}", ", }"),
        lambda text: "\n\n" + text + "\n",
    ],
    ids=range(10),
)
def test_the_odd_text_in_many_forms(load, change):
    assert load([entry(milestone_info=change(BLOCK + "\n" + BLOCK))]).routes == load([entry()]).routes


@pytest.mark.parametrize(
    "landmark", ['Joe\'s "Best", Inc. {x}: y, z} is on your left', "a", 'The "Bar"', "日本, 語"]
)
def test_landmarks_hold_any_signs(load, landmark):
    block = BLOCK.replace("Corner Cafe is on your left", landmark)
    assert load([entry(milestone_info=block + BLOCK)]).routes[0].milestones[0].landmark == landmark


def _without(name):
    bad = entry()
    del bad[name]
    return bad


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (3, "expected an object, found 3"),
        (_without("start_place"), "field 'start_place.relocated_geocode' is missing"),
        (entry(start_place={"name": "x"}), "'start_place.relocated_geocode' is missing: no 'relocated_geoc"),
        (
            entry(start_place={"relocated_geocode": [1]}),
            r"'start_place.relocated_geocode' is \[1\]; expected",
        ),
        (
            entry(start_place=[1]),
            "'start_place.relocated_geocode' is missing: no 'relocated_geocode' in list",
        ),
        (entry(init_heading="north"), "field 'init_heading' is 'north'; expected degrees"),
        (entry(init_heading=400), "field 'init_heading' is 400"),
        (entry(dest_place="x"), "field 'dest_place.name' is 'x'"),
        (entry(dest_place={"name": 3}), "field 'dest_place.name' is"),
        (_without("route_results"), "field 'route_results.geocode_list' is missing"),
        (entry(route_results={"geocode_list": []}), "'route_results.geocode_list' is .*; expected a list of"),
        (entry(route_results={"geocode_list": [[1, 2], [3]]}), r"'route_results.geocode_list\[1\]' is \[3\]"),
        (entry(route_results={"geocode_list": [[1, 200], [3, 4]]}), r"geocode_list\[0\]' is \[1, 200\]"),
        (_without("milestone_info"), "field 'milestone_info' is missing"),
        (entry(milestone_info=[]), r"field 'milestone_info' is \[\]; expected a text"),
        (entry(milestone_info=""), "'milestone_info' has 0 blocks; expected 2"),
        (entry(milestone_info=BLOCK), "'milestone_info' has 1 blocks; expected 2"),
        (entry(milestone_info=BLOCK + BLOCK[:-1]), "'milestone_info', block 1: expected '}' at the end"),
        (entry(milestone_info=BLOCK + "x" + BLOCK), "'milestone_info', block 1: expected '{', found 'x"),
        (entry(milestone_info=BLOCK + "{" + BLOCK), "block 1: expected .* or '}', found '{"),
        (entry(milestone_info=BLOCK + "{ what? }"), "block 1: expected .*, found 'what"),
        (
            entry(milestone_info=BLOCK + "{}"),
            "block 1: 'to_next_intersection_heading' is missing; found nothing",
        ),
        (entry(milestone_info=BLOCK + BLOCK.replace("298 (", "(")), "block 1: 'to_next_.*' is '\\(northwest"),
        (
            entry(milestone_info=BLOCK + BLOCK.replace("(northwest)", "")),
            "block 1: 'to_next_.*' is '298'; exp",
        ),
        (entry(milestone_info=BLOCK + BLOCK.replace("northwest", "up")), "such as '298 \\(northwest\\)'"),
        (entry(milestone_info=BLOCK + BLOCK.replace("298", "100")), "but 100 degrees are east"),
        (entry(milestone_info=BLOCK + BLOCK.replace("50 meters", "far")), "block 1: 'distance' is 'far'"),
    ],
    ids=range(27),
)
def test_what_is_wrong_in_a_route_is_named(load, tmp_path, bad, words):
    with pytest.raises(SftrlError, match=words) as error:
        load([entry(), bad, entry()])
    assert f"{tmp_path / 'route_infos.json'}: route 1: " in str(error.value)
    kept = load([entry(), bad, entry()], skip_bad=True)
    assert [route.index for route in kept.routes] == [0, 2]
    assert kept.problems == (str(error.value),)
    assert kept.route(2).index == 2
    with pytest.raises(SftrlError, match="there is no route 1; found 2 routes, 0 to 2"):
        kept.route(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a JSON file"),
        ("[[", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("{}", "expected .routes, the crawler.s counter., found dict"),
        ("[[]]", "expected .routes, the crawler.s counter., found a list of 1"),
        ("[{}, 1]", "expected .routes, the crawler.s counter."),
        ("[[], 0]", "no good route among 0"),
        ("[[3], 1]", "route 0: expected an object"),
        ("\xff", "not a JSON file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, words):
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("latin-1"))
    for skip_bad in (False, True):
        with pytest.raises(SftrlError, match="no good route|" + words if skip_bad else words) as error:
            load_routes(path, skip_bad=skip_bad)
        assert str(path) in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(SftrlError, match="no such file"):
        load_routes(tmp_path / "none.json")
    with pytest.raises(SftrlError, match="cannot be read"):
        load_routes(tmp_path)


@pytest.mark.parametrize("counter", [0, 1, 48, 1017])
def test_the_counter_of_the_crawler_is_not_the_number_of_routes(load, counter):
    found = load([entry(), entry()], counter)
    assert len(found.routes) == 2 and not found.problems


def test_a_route_may_name_its_city_and_is_cut_after_some_legs(load):
    (named,) = load([entry(city="Milan")]).routes
    assert named.city == "Milan" and load([entry()]).routes[0].city == ""
    assert named.cut(2) is named and len(named.milestones) == 2
    short = named.cut(1)
    assert short.milestones == named.milestones[:1] and (short.city, short.start) == ("Milan", named.start)
    with pytest.raises(SftrlError, match="most_legs is 0"):
        named.cut(0)
    with pytest.raises(SftrlError, match="field 'city' is 3"):
        load([entry(city=3)])


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)
LANDMARKS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@st.composite
def milestones(draw):
    word = draw(st.sampled_from(COMPASS))
    heading = wrap(compass_heading(word) + draw(st.integers(-20, 20) | st.floats(-20, 20)))
    landmark = draw(st.none() | LANDMARKS.filter(lambda text: not text.lower().startswith(("no ", "there "))))
    distance = draw(st.none() | st.integers(0, 10_000).map(float) | st.floats(0, 1e4))
    return Milestone(draw(PLACES), float(heading), word, landmark, distance)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back_equal(tmp_path_factory, data):
    routes = [
        Route(
            index,
            data.draw(PLACES),
            data.draw(st.none() | st.integers(0, 359).map(float) | st.floats(0, 359)),
            tuple(data.draw(st.lists(milestones(), min_size=1, max_size=4))),
            data.draw(LANDMARKS | st.just("")),
        )
        for index in range(2)
    ]
    path = tmp_path_factory.mktemp("routes") / "route_infos.json"
    write_routes(path, routes)
    assert load_routes(path).routes == tuple(routes)


def test_what_cannot_be_written(tmp_path):
    for landmark in ("two\nlines", " blank", "No landmark nearby"):
        route = Route(0, ROUTE.start, None, (Milestone((1.0, 2.0), 0.0, "north", landmark),))
        with pytest.raises(SftrlError, match="landmark .* cannot be written"):
            write_routes(tmp_path / "r.json", [route])
    with pytest.raises(SftrlError, match="has no milestone"):
        write_routes(tmp_path / "r.json", [Route(0, ROUTE.start, None, ())])
