import contextlib
import io
import json
import random

import numpy as np
import pytest
from PIL import Image

from sftrl_ext.envs.virl import street_view
from sftrl_ext.envs.virl.street_view import GRIDS, Panorama, StreetViews, slice_view
from sftrl_ext.errors import SftrlError


def coded(width=720, height=360):
    """Red says the column, on a wave without a seam; green is the row; blue says which half of the sphere."""
    columns = (np.arange(width) + 0.5) / width
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 127.5 - 120 * np.cos(2 * np.pi * columns)
    pixels[..., 1] = (255 * (np.arange(height) + 0.5) / height)[:, None]
    pixels[..., 2] = 127.5 + 120 * np.sin(2 * np.pi * columns)
    return pixels


def seen(color):
    """Longitude from the first column and latitude upwards that a colour of `coded` stands for."""
    red, green, blue = (float(value) for value in color)
    longitude = np.degrees(np.arctan2(blue - 127.5, 127.5 - red)) % 360
    return longitude, 90 - green / 255 * 180


def off(a, b):
    return abs((a - b + 180) % 360 - 180)


def fill(folder, **pictures):
    folder.mkdir(exist_ok=True)
    for name, rotation in pictures.items():
        Image.fromarray(coded()).save(folder / f"{name}.jpg", quality=95, subsampling=0)
        (folder / f"{name}.metadata.json").write_text(json.dumps({"rotation": rotation}))
    return folder


@pytest.mark.parametrize("rotation", [0, 33.5, 180, 271, -45, 725])
@pytest.mark.parametrize("heading", [0, 45, 90, 179.5, 300, -90, 400])
def test_straight_ahead_is_the_column_of_the_heading(heading, rotation):
    view = slice_view(coded(), heading, rotation, size=65)
    assert view.shape == (65, 65, 3) and view.dtype == np.uint8
    longitude, latitude = seen(view[32, 32])
    assert off(longitude, heading + rotation) < 1.5 and abs(latitude) < 1.5


@pytest.mark.parametrize("fov", [60, 90, 120])
def test_the_edges_are_half_the_field_of_view_away(fov):
    view = slice_view(coded(), 70, fov=fov, size=201)
    for place, way in ((0, -1), (200, 1)):
        assert off(seen(view[100, place])[0], 70 + way * fov / 2) < 2
        assert abs(seen(view[200 - place, 100])[1] - way * fov / 2) < 2


def test_every_pixel_is_where_a_pinhole_camera_sees_it():
    size, heading, pitch = 40, 25.0, 20.0
    view = slice_view(coded(), heading, pitch=pitch, size=size)
    for row, column in ((3, 5), (20, 30), (38, 1), (10, 39)):
        x, y, z = column - (size - 1) / 2, -(row - (size - 1) / 2), size / 2
        tilt = np.radians(pitch)
        up, ahead = y * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - y * np.sin(tilt)
        longitude, latitude = seen(view[row, column])
        assert off(longitude, heading + np.degrees(np.arctan2(x, ahead))) < 2
        assert abs(latitude - np.degrees(np.arctan2(up, np.hypot(x, ahead)))) < 2


def test_there_is_no_seam_and_looking_straight_up_works():
    flat = np.full((90, 180, 3), (10, 200, 90), np.uint8)
    for heading in (0, 180, 359.9):
        assert np.abs(slice_view(flat, heading, size=50).astype(int) - (10, 200, 90)).max() <= 1
    assert slice_view(flat, 12, pitch=90, size=50).std(axis=(0, 1)).max() < 1
    view = slice_view(coded(), 0, size=200).astype(int)
    assert np.abs(np.diff(view[100], axis=0)).max() < 8


def test_a_turn_by_less_than_a_column_moves_the_view():
    pixels = coded()
    a, b = (slice_view(pixels, heading, size=120).astype(int) for heading in (90.0, 90.2))
    assert 0 < np.abs(a - b).mean() < 2


@pytest.mark.parametrize("size", [1200, 700, 224, 223])
@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_grids_have_the_four_views_of_the_profile(tmp_path, profile, size):
    grid = StreetViews(fill(tmp_path / "v", a=40.0)).grid("a", 100, profile, size)
    assert grid.size == (size, size) and grid.mode == "RGB"
    pixels = np.asarray(grid)
    turns = {"exact": (0, 90, 180, -90), "authors": (-135, -45, 45, 135)}[profile]
    quarter = size // 4
    for turn, (row, column) in zip(
        turns,
        ((quarter, quarter), (quarter, -quarter), (-quarter, quarter), (-quarter, -quarter)),
        strict=True,
    ):
        assert off(seen(pixels[row, column])[0], 100 + 40 + turn) < 4
    line = max(1, round(size / 240))
    black = np.nonzero((pixels == 0).all(axis=(1, 2)))[0]
    assert len(black) == line and abs(black.mean() - (size - 1) / 2) <= 0.5
    assert ((pixels == 0).all(axis=(0, 2)).sum()) == line


def test_a_grid_is_its_views():
    panorama = Panorama.pack(Image.fromarray(coded()), 12.0)
    grid = np.asarray(panorama.grid(77, "exact", 405))
    assert (grid[:198, :198] == np.asarray(panorama.view(77, size=202))[:198, :198]).all()
    assert (grid[-198:, -198:] == np.asarray(panorama.view(77 - 90, size=202))[-198:, -198:]).all()


def test_pictures_are_decoded_once_while_they_are_kept(tmp_path, monkeypatch):
    views = StreetViews(fill(tmp_path / "v", a=0.0, b=10.0, c=20.0))
    read = []
    monkeypatch.setattr(StreetViews, "_read", lambda self, *key: read.append(key) or original(self, *key))
    for _ in range(3):
        for name in "abc":
            views.grid(name, 10, size=224)
            views.grid(name, 90, "authors", size=224)
    assert len(read) == 3 and len(views.cache) == 3
    small = StreetViews(tmp_path / "v", at_most=views.cache.size // 2)
    for name in "abcabc":
        small.view(name, 0, size=100)
        assert small.cache.size <= small.cache.at_most
    assert len(small.cache) <= 2 and len(read) > 6


original = StreetViews._read


def test_sampling_maps_are_bounded():
    panorama = Panorama.pack(Image.fromarray(coded(72, 36)), 0.0)
    for size in range(10, 40):
        panorama.view(0, size=size)
    assert street_view._sampling.cache_info().currsize <= 8


@pytest.mark.parametrize("width", [720, 850, 1001])
def test_small_views_of_reduced_pictures_look_the_same_way(tmp_path, width):
    folder = fill(tmp_path / "v", a=250.0)
    Image.fromarray(coded(width, width // 2)).save(folder / "a.jpg", quality=95, subsampling=0)
    views = StreetViews(folder)
    for size in (16, 60, 130, 400):
        for heading in (0, 109, 111, 250):
            center = np.asarray(views.view("a", heading, size))[size // 2, size // 2]
            assert off(seen(center)[0], heading + 250) < 4 + 100 / size
    widths = {panorama.width for panorama in views.cache._kept.values()}
    assert widths == {width, width // 2, width // 4, width // 8}


def test_wrong_files_are_named(tmp_path):
    folder = fill(tmp_path / "v", good=0.0, cut=0.0, text=0.0, north=0.0, bad=0.0, bare=0.0)
    views = StreetViews(folder)
    (folder / "text.jpg").write_text("not a picture")
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "north.metadata.json").write_text('{"rotation": "north"}')
    (folder / "bad.metadata.json").write_text("{")
    (folder / "bare.metadata.json").unlink()
    for name, file in (
        ("text", r"text\.jpg"),
        ("cut", r"cut\.jpg"),
        ("north", r"north\.metadata\.json.*rotation.*number.*'north'"),
        ("bad", r"bad\.metadata\.json"),
        ("bare", r"bare\.metadata\.json.*north"),
        ("none", r"none\.jpg.*no such file"),
    ):
        with pytest.raises(SftrlError, match=file):
            views.grid(name, 0)
    for name in ("../v/good", "", "a/b", ".."):
        with pytest.raises(SftrlError, match="plain file name"):
            views.view(name, 0)
    with pytest.raises(SftrlError, match="no such folder"):
        StreetViews(tmp_path / "missing")
    assert "good" in views and "none" not in views


@pytest.mark.parametrize("value", ["true", "null", "NaN", "[1]", "1e999"])
def test_a_rotation_must_be_a_number(tmp_path, value):
    folder = fill(tmp_path / "v", a=0.0)
    (folder / "a.metadata.json").write_text(f'{{"rotation": {value}}}')
    with pytest.raises(SftrlError, match="rotation"):
        StreetViews(folder).rotation("a")


def test_wrong_arguments_are_refused():
    pixels = coded(72, 36)
    for kind, arguments in (
        ("pixels", {"size": 0}),
        ("pixels", {"size": 100_000}),
        ("field", {"fov": 180}),
        ("field", {"fov": float("nan")}),
        ("pitch", {"pitch": 91}),
        ("heading", {"heading": float("inf")}),
    ):
        with pytest.raises(SftrlError, match=kind):
            slice_view(pixels, **{"heading": 0, **arguments})
    for wrong in (pixels[..., 0], pixels.astype(float), pixels[..., :2], pixels[:1]):
        with pytest.raises(SftrlError, match="shape"):
            slice_view(wrong, 0)
    with pytest.raises(SftrlError, match=r"Did you mean 'exact'"):
        Panorama.pack(Image.fromarray(pixels), 0.0).grid(0, "exakt")
    assert list(GRIDS) == ["exact", "authors"]


@pytest.mark.parametrize("rotation", ["1" + "0" * 400, "[" * 100_000])
def test_a_rotation_that_is_no_float_is_named(tmp_path, rotation):
    folder = fill(tmp_path / "v", a=0.0)
    (folder / "a.metadata.json").write_text(f'{{"rotation": {rotation}')
    with pytest.raises(SftrlError, match=r"a\.metadata\.json"):
        StreetViews(folder).grid("a", 0)
    (folder / "a.metadata.json").write_text(f'{{"rotation": 1{"0" * 400}}}')
    with pytest.raises(SftrlError, match=r"a\.metadata\.json: expected \"rotation\", a number"):
        StreetViews(folder).grid("a", 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_a_damaged_picture_is_named(tmp_path, kind):
    folder = fill(tmp_path / "v", a=0.0)
    file, damage = io.BytesIO(), random.Random(0)
    Image.new("RGB", (128, 64), "red").save(file, kind)
    for _ in range(40):
        data = bytearray(file.getvalue())
        for _ in range(damage.choice([1, 5, 20])):
            data[damage.randrange(min(len(data), 200))] = damage.randrange(256)
        (folder / "a.jpg").write_bytes(data)
        with contextlib.suppress(SftrlError):
            StreetViews(folder).grid("a", 0, size=16)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (20_000, 2)])
def test_a_picture_too_low_for_a_view_is_named(tmp_path, size):
    folder = fill(tmp_path / "v", a=0.0)
    Image.new("RGB", size).save(folder / "a.jpg", "PNG")
    with pytest.raises(SftrlError, match=rf"a\.jpg: {size[0]}x{size[1]} pixels; expected 16 or more"):
        StreetViews(folder).grid("a", 0, size=16)
