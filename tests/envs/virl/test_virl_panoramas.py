from __future__ import annotations

import contextlib
import json
import os
import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.virl.geo import great_circle_m, offset
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.plain_pickle import load_plain
from sftrl_ext.errors import SftrlError

PLACES = {(40.7, -74.0): "CAoSLEFG_-a", (40.7001, -74.0): "b", (-33, 151): "ü.1"}


@pytest.mark.parametrize("protocol", range(6))
def test_the_authors_file(tmp_path, protocol):
    path = tmp_path / "gps_pano_mapping.pkl"
    path.write_bytes(pickle.dumps(PLACES, protocol))
    found = PanoramaMap.load(path)
    assert found.places == PLACES
    assert len(found) == 3


@pytest.mark.parametrize("name", ["map.json", "map.parquet"])
def test_it_is_converted(tmp_path, name):
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(PLACES))
    found = PanoramaMap.load(tmp_path / "map.pkl")
    found.save(tmp_path / name)
    assert PanoramaMap.load(tmp_path / name) == found
    empty = PanoramaMap({})
    empty.save(tmp_path / name)
    assert PanoramaMap.load(tmp_path / name) == empty
    assert empty.nearest((0, 0)) is None
    with pytest.raises(SftrlError, match="written as .json or .parquet"):
        found.save(tmp_path / "map.pkl")


class Bomb:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "bad",
    [
        Bomb(os.system, ("touch bomb",)),
        {(1.0, 2.0): Bomb(os.system, ("touch bomb",))},
        {"a": [Bomb(eval, ("open('bomb', 'w')",))]},
        {(np.float64(1), 2.0): "a"},
        OrderedDict(),
        Bomb(dict, ()),
        {1, 2},
        frozenset({1}),
        b"bytes",
        bytearray(b"bytes"),
        1j,
        print,
        Exception("x"),
    ],
    ids=range(13),
)
def test_what_is_not_plain_is_refused_and_not_run(tmp_path, monkeypatch, bad, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "map.pkl"
    path.write_bytes(pickle.dumps(bad, protocol))
    with pytest.raises(SftrlError, match="refused: .* instruction [A-Z_0-9]+ at byte") as error:
        PanoramaMap.load(path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "bomb").exists()


BOMBS = {
    "deep tuple": b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "tuple in a tuple": pickle.dumps({((1, 2), 3): "a"}),
    "a far memo": b"\x80\x04]r\xff\xff\xff\x7fq\x00.",
    "a long string announced": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "a long frame announced": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "a long bytearray announced": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a number of many bits": pickle.dumps(1 << 5000),
    "many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "unhashable key": b"\x80\x04}]]s.",
    "no stack": b"0.",
    "nothing to stop at": b"\x80\x04.",
    "two values": b"\x80\x04]].",
    "a mark": b"\x80\x04(.",
    "odd items": b"\x80\x04}(K\x01u.",
    "wrong container": b"\x80\x04]K\x01K\x02s.",
    "unknown memo": b"\x80\x04h\x05.",
    "persistent": b"Px\n.",
    "extension": b"\x80\x02\x82\x01.",
    "empty": b"",
    "cut off": pickle.dumps(PLACES)[:-5],
    "text": b"hello world",
    "json": b"{}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_other_bombs_and_rubbish(tmp_path, name):
    path = tmp_path / "map.pkl"
    path.write_bytes(BOMBS[name])
    if name != "a far memo":
        with pytest.raises(SftrlError, match=str(path)):
            load_plain(path.read_bytes(), str(path))
    with pytest.raises(SftrlError, match=str(path)):
        PanoramaMap.load(path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(PLAIN, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_plain_data_comes_back(value, protocol):
    assert load_plain(pickle.dumps(value, protocol), "x") == value
    assert load_plain(pickletools.optimize(pickle.dumps(value, protocol)), "x") == value


@pytest.mark.parametrize("value", [(), (1,), (1, "a"), (1, 2.5, "c"), (1, 2, 3, 4), 2**100, -(2**64)])
def test_tuples_and_big_numbers(value):
    for protocol in range(6):
        assert load_plain(pickle.dumps([value, value], protocol), "x") == [value, value]


@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from([bytes([i]) for i in b"\x80\x04}](K\x01\x85\x86tseu.ah0q\x94X"]), max_size=30
    ).map(b"".join)
)
@settings(max_examples=200, deadline=None)
def test_any_bytes(data):
    with contextlib.suppress(SftrlError):
        load_plain(data, "x")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([((1, 2), 3)], "place 0 .* has the panorama id 3; expected a plain file name"),
        ([((1, 2), "a"), ((1, 2), "../x")], "place 1 .* panorama id '../x'"),
        ([((1, 2), "..")], "panorama id"),
        ([((1, 2), "")], "panorama id"),
        ([((1, 2), "a\\b")], "panorama id"),
        ([("ab", "a")], "place 0: the point is 'ab'; expected .latitude, longitude."),
        ([((1, 2, 3), "a")], "the point is"),
        ([((1, 1000), "a")], "the point is"),
        ([((True, 1), "a")], "the point is"),
        ([((2**2000, 1), "a")], "the point is"),
    ],
)
def test_what_is_wrong_in_a_map_is_named(tmp_path, places, words):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(dict(places)))
    with pytest.raises(SftrlError, match=words.replace("place 1", "place 0")) as error:
        PanoramaMap.load(tmp_path / "m.pkl")
    assert "m.pkl" in str(error.value)
    with pytest.raises(SftrlError, match=words):
        PanoramaMap(places)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.json", "{}", "expected a list of .lat, lng, panorama id., found dict"),
        ("m.json", "[[1, 2]]", r"place 0 is \[1, 2\]"),
        ("m.json", "[", "not a JSON file"),
        ("m.parquet", "hello", "not a parquet file"),
        ("m.txt", "", "expected a file that ends in .pkl"),
        ("m.pkl", None, "no such file"),
    ],
)
def test_what_is_wrong_in_other_files(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SftrlError, match=words) as error:
        PanoramaMap.load(tmp_path / name)
    assert name in str(error.value)


def test_a_list_is_no_map(tmp_path):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(SftrlError, match="expected a dict .*found list"):
        PanoramaMap.load(tmp_path / "m.pkl")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"lat": [1.0]}), tmp_path / "m.parquet")
    with pytest.raises(SftrlError, match="column 'lng' is missing; found lat"):
        PanoramaMap.load(tmp_path / "m.parquet")
    (tmp_path / "m.json").write_text(json.dumps([[1, 2, "a"], [1, 2, "b"]]))
    assert PanoramaMap.load(tmp_path / "m.json").places == {(1, 2): "b"}


@pytest.mark.parametrize(
    ("lat", "lng"), [(40.7, -74.0), (0.0, 179.9999), (89.9999, 10.0), (-60.0, -179.9999)]
)
def test_the_nearest_is_the_one_brute_force_finds(lat, lng):
    rng = np.random.default_rng(3)
    points = [offset((lat, lng), *pair) for pair in rng.uniform((0, 0), (360, 150), (400, 2)).tolist()]
    found = PanoramaMap([(point, str(i)) for i, point in enumerate(points)])
    hits = 0
    for heading, metres in rng.uniform((0, 0), (360, 180), (300, 2)).tolist():
        asked = offset((lat, lng), heading, metres)
        for within in (5.0, 20.0):
            distances = great_circle_m(asked, np.array(points))
            best = int(np.argmin(distances))
            expected = (points[best], str(best)) if distances[best] < within else None
            assert found.nearest(asked, within) == expected
            hits += expected is not None
    assert 100 < hits < 600


def test_the_panorama_at_the_very_point_comes_first():
    near = offset((40.7, -74.0), 90, 0.001)
    found = PanoramaMap([(near, "near"), ((40.7, -74.0), "here"), (offset((40.7, -74.0), 0, 40), "far")])
    assert found.nearest((40.7, -74.0)) == ((40.7, -74.0), "here")
    assert found.nearest(offset((40.7, -74.0), 0, 19))[1] in ("here", "near")
    assert found.nearest(offset((40.7, -74.0), 180, 21)) is None
