import json
import math
import pickle
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftrl_ext.envs.virl.city import CITY_STYLES, City, build_city
from sftrl_ext.envs.virl.city.build import MAP, PICKLE, ROUTES, VIEWS
from sftrl_ext.envs.virl.city.names import KINDS, invent_names
from sftrl_ext.envs.virl.city.paint import CAMERA, Painter
from sftrl_ext.envs.virl.city.walks import LEGS, SIDES, geocodes, make_routes
from sftrl_ext.envs.virl.episode import PlaySettings, track_of
from sftrl_ext.envs.virl.geo import compass_word, distance_m, heading_deg, turn_deg
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import load_routes
from sftrl_ext.envs.virl.street_view import StreetViews
from sftrl_ext.errors import SftrlError

FIGURE = Path(__file__).parents[3] / "docs" / "figures" / "virl-views.png"
SMALL = {"style": "brick", "seed": 7, "routes": 6, "width": 64, "streets": 3}


@lru_cache
def planned(style, seed=0, routes=30):
    city = City(style, seed, routes)
    return city, city.plan()


@lru_cache
def painter(style, width=512):
    city, plan = planned(style)
    return Painter(plan, (width, width // 2), city.number)


def painted(style, place, rotation=0.0, width=512):
    return np.asarray(painter(style, width).paint(tuple(map(float, place)), rotation)).astype(int)


def columns(heading, width=512, rotation=0.0, spread=0):
    middle = math.floor((heading + rotation) / 360 * width)
    return np.arange(middle - spread, middle + spread + 1) % width


def rows(degrees, width=512):
    return round((0.5 - degrees / 180) * width / 2)


def bearing(a, b):
    return math.degrees(math.atan2(b[0] - a[0], b[1] - a[1])) % 360


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("city") / "new"
    told = []
    assert build_city(out, **SMALL, progress=lambda done, of: told.append((done, of))) == out / ROUTES
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    return out


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_files(built, tmp_path):
    build_city(tmp_path / "b", **SMALL)
    assert files(tmp_path / "b") == files(built)
    text = {"width": 64, "streets": 3, "pictures": False, "routes": 6}
    build_city(tmp_path / "c", "brick", 8, **text)
    assert files(tmp_path / "c")[ROUTES] != files(built)[ROUTES]
    assert not (tmp_path / "c" / VIEWS).exists()


def test_an_interrupted_build_goes_on(built, tmp_path):
    out = tmp_path / "b"

    def stop(done, of):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_city(out, **SMALL, progress=stop)
    left = files(out)
    assert ROUTES not in left and len(left) == 1 + 2 * 5
    assert {name: files(built)[name] for name in left} == left
    (out / VIEWS / ".brick-7-00005.tmp").write_bytes(b"half")
    kept = next((out / VIEWS).glob("*-00000.jpg")).stat().st_mtime_ns
    build_city(out, **SMALL)
    assert files(out) == files(built)
    assert next((out / VIEWS).glob("*-00000.jpg")).stat().st_mtime_ns == kept


@pytest.mark.parametrize("points", [0, 2])
def test_only_what_walks_may_pass_is_drawn(built, tmp_path, points):
    routes = build_city(tmp_path / "few", **SMALL, points_per_leg=points)
    few, whole = files(tmp_path / "few"), files(built)
    pictures = {name for name in few if name.startswith(VIEWS)}
    assert pictures < {name for name in whole if name.startswith(VIEWS)}
    assert {name: whole[name] for name in pictures | {ROUTES, MAP}} == {
        name: few[name] for name in pictures | {ROUTES, MAP}
    }
    mapping = PanoramaMap.load(tmp_path / "few" / MAP)
    settings = PlaySettings(modality="image", street_views=str(tmp_path / "few" / VIEWS))
    found = load_routes(routes).routes
    tracks = [track_of(route, settings, mapping, points) for route in found]
    passed = {waypoint.pano_id for track in tracks for waypoint in track.waypoints}
    assert pictures == {f"{VIEWS}/{pano_id}{end}" for pano_id in passed for end in (".jpg", ".metadata.json")}
    with pytest.raises(SftrlError, match="no picture of its panorama"):
        for route in found:
            track_of(route, settings, mapping, 5)


def test_folders_of_others_are_left_alone(built, tmp_path):
    with pytest.raises(SftrlError, match="another city"):
        build_city(built, **{**SMALL, "seed": 8})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SftrlError, match="new or empty folder"):
        build_city(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_wrong_arguments_are_refused(tmp_path):
    for change, words in (
        ({"style": "brik"}, "Did you mean 'brick'"),
        ({"routes": 0}, "number of routes"),
        ({"width": 65}, "even"),
        ({"width": 32}, "width"),
        ({"streets": 2}, "streets across"),
        ({"seed": -1}, "seed"),
        ({"points_per_leg": -1}, "points a leg"),
        ({"routes": 100_000}, "more streets"),
    ):
        with pytest.raises(SftrlError, match=words):
            build_city(tmp_path / "x", **{**SMALL, **change})
    assert not (tmp_path / "x").exists()


def test_the_files_are_read_back(built):
    city = City(SMALL["style"], SMALL["seed"], SMALL["routes"], SMALL["streets"], SMALL["width"])
    plan = city.plan()
    routes = load_routes(built / ROUTES).routes
    assert routes == tuple(make_routes(plan, 6, city.number))
    places = PanoramaMap.load(built / PICKLE)
    assert places == PanoramaMap.load(built / MAP) and len(places) == len(plan.points)
    plain = pickle.loads((built / PICKLE).read_bytes())
    assert all(type(value) is float for point in plain for value in point)
    views = StreetViews(built / VIEWS)
    assert len(list((built / VIEWS).iterdir())) == 2 * len(places)
    turns = set()
    for pano_id in places.places.values():
        with Image.open(built / VIEWS / f"{pano_id}.jpg") as image:
            assert image.size == (64, 32)
        turns.add(views.rotation(pano_id))
    assert len(turns) > len(places) * 0.9 and min(turns) < 40 and max(turns) > 320
    for route in routes:
        for point in (route.start, *(stop.geocode for stop in route.milestones)):
            assert point in places.places
    raw = json.loads((built / ROUTES).read_text())
    assert raw[1] == len(raw[0]) == 6 and raw[0][0]["milestone_info"].startswith("{\n")


@pytest.mark.parametrize("style", CITY_STYLES)
def test_routes_follow_the_streets(style):
    city, plan = planned(style)
    places = geocodes(plan)
    assert len(set(places)) == len(places)
    point = {place: index for index, place in enumerate(places)}
    streets = {frozenset(street): set(along) for street, along in plan.along.items()}
    names = {mark.name: mark for mark in plan.landmarks}
    assert len(names) == len(plan.landmarks)
    routes = make_routes(plan, 30, city.number)
    assert len({(route.start, route.milestones) for route in routes}) == 30
    named = 0
    for route in routes:
        assert len(route.milestones) in LEGS and route.destination in names
        before = route.start
        for number, stop in enumerate(route.milestones):
            ends = {point[before], point[stop.geocode]}
            assert any(ends <= along for along in streets.values())
            assert distance_m(before, stop.geocode) == pytest.approx(stop.distance_m, abs=0.51)
            assert abs(turn_deg(stop.heading_next, heading_deg(before, stop.geocode))) < 0.51
            assert stop.compass == compass_word(stop.heading_next)
            if number < len(route.milestones) - 1:
                assert len(plan.neighbours(point[stop.geocode])) >= 3
            if stop.landmark:
                name, where = stop.landmark.split(" is ")
                here = plan.points[point[stop.geocode]]
                turn = turn_deg(stop.heading_next, bearing(here, names[name].position))
                assert abs(turn_deg(turn, SIDES.index(where) * 45)) < 23
                assert math.dist(here, names[name].position) < 40
                named += 1
            before = stop.geocode
        assert route.milestones[-1].landmark.startswith(route.destination)
    assert named > 100


def test_panoramas_are_near_each_other_along_every_street():
    for style in ("brick", "nordic"):
        _, plan = planned(style)
        for along in plan.along.values():
            steps = np.hypot(*np.diff(plan.points[list(along)], axis=0).T)
            assert steps.max() < 19 and steps.min() > 8


@pytest.mark.parametrize("style", ["brick", "nordic", "glass"])
def test_streets_go_where_the_plan_says(style):
    _, plan = planned(style)
    look = painter(style)
    for node in range(0, len(plan.nodes), 5):
        look.paint(tuple(plan.nodes[node].tolist()), 0.0)
        far = look._cast()[1][0]
        ways = sorted(bearing(plan.nodes[node], plan.nodes[other]) for other in plan.neighbours(node))
        for other in plan.neighbours(node):
            column = columns(bearing(plan.nodes[node], plan.nodes[other]))
            assert far[column].min() > math.dist(plan.nodes[node], plan.nodes[other]) * 0.9
        for way, after in zip(ways, [*ways[1:], ways[0] + 360], strict=True):
            if 60 < after - way < 150:
                assert far[columns((way + after) / 2)].max() < 25


def test_the_middle_of_a_street_has_road_ahead_and_houses_beside():
    style = CITY_STYLES["brick"]
    _, plan = planned("brick")
    a, b = next(street for street in plan.streets if len(plan.along[street]) > 6)
    middle = plan.points[plan.along[a, b][3]]
    pixels = painted("brick", middle)
    ahead = bearing(plan.nodes[a], plan.nodes[b])
    row = rows(-math.degrees(math.atan(CAMERA / 7)))
    for way in (ahead, ahead + 180):
        road = pixels[row, columns(way + 6, spread=2)]
        assert np.abs(road - np.array(style.asphalt)).mean() < 14
    for way in (ahead + 90, ahead - 90):
        assert np.abs(pixels[rows(3), columns(way, spread=8)] - np.array(style.asphalt)).mean() > 14


def sign_share(style, plan, mark, place, heading):
    """Share of the pixels in a direction, from the horizon upwards, that have the colours of a landmark."""
    pixels = painted(style, place)
    part = pixels[rows(22) : rows(3)][:, columns(heading, spread=16)]
    return float((np.abs(part - np.array(KINDS[mark.kind].color)).max(axis=-1) < 60).mean())


def test_landmarks_are_seen_where_the_route_says():
    """Those whose colours differ from brick, at every intersection where one stands near."""
    _, plan = planned("brick")
    bold = {"bakery", "bookshop", "fishmonger", "market", "pharmacy", "music"}
    tried = 0
    for mark in plan.landmarks:
        if mark.node is None or mark.kind not in bold or math.dist(plan.nodes[mark.node], mark.position) > 15:
            continue
        place = plan.nodes[mark.node]
        heading = bearing(place, mark.position)
        here = sign_share("brick", plan, mark, place, heading)
        assert here > 0.2, mark
        assert here > 2 * sign_share("brick", plan, mark, place, heading + 180), mark
        tried += 1
    assert tried >= 4


def test_the_name_on_a_sign_has_edges():
    """White letters on the sign's ground: many sharp steps where the board is, seen from the street."""
    _, plan = planned("brick")
    for mark in [mark for mark in plan.landmarks if mark.street is not None][:3]:
        spots = plan.points[list(plan.along[mark.street])]
        place = spots[np.hypot(*(spots - mark.position).T).argmin()]
        pixels = painted("brick", place, width=1024)
        middle = columns(bearing(place, mark.position), 1024, spread=24)
        far = math.dist(place, mark.position)
        low, high = (rows(math.degrees(math.atan((z - CAMERA) / far)), 1024) for z in (3.2, 4.5))
        steps = np.abs(np.diff(pixels[high:low, middle].mean(axis=-1), axis=1)) > 40
        assert steps.mean() > 0.05, mark


@pytest.mark.parametrize("rotation", [90.0, 225.0])
def test_the_rotation_turns_the_picture(rotation):
    _, plan = planned("marble")
    plain, turned = (painted("marble", plan.nodes[3], turn) for turn in (0.0, rotation))
    assert np.abs(np.roll(plain, round(rotation / 360 * 512), axis=1) - turned).mean() < 0.5


def test_styles_do_not_look_alike():
    look = {}
    for style in CITY_STYLES:
        city, plan = planned(style)
        small = Painter(plan, (128, 64), city.number)
        pictures = [np.asarray(small.paint(tuple(plan.nodes[i].tolist()), 0.0)) for i in (5, 9)]
        thirds = [part.mean(axis=(0, 1)) for part in np.split(np.concatenate(pictures, axis=1)[:63], 3)]
        look[style] = np.concatenate(thirds)
    for a, b in combinations(look, 2):
        assert np.abs(look[a] - look[b]).max() > 18, (a, b)
    assert len(look) >= 12


def test_names_are_not_used_twice():
    names = invent_names(np.random.default_rng(0))
    assert len(names) > 500 and len({name for _, name in names}) == len(names)
    assert len({word for _, name in names for word in name.split()} & {"Cafe", "Museum"}) == 2
    first = [kind for kind, _ in names[: len(KINDS)]]
    assert sorted(first) == sorted(KINDS)


def test_the_sheet_is_small():
    with Image.open(FIGURE) as image:
        assert image.width >= 600
    assert FIGURE.stat().st_size <= 250_000
