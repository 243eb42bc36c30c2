from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import virl_sources
from data_prep.authors import import_authors
from data_prep.build import build_file
from data_prep.card import inspect_file, write_card
from data_prep.options import DataOptions
from data_prep.schema import SCHEMA
from data_prep.validate import validate_file
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_check import check_routes
from data_prep.virl_sources import RouteSet, RouteSource, held_out, held_out_indices, read_route_set, walks
from data_prep.virl_splits import ROUTE_SPLITS, register_route_split
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.episode import PlaySettings, track_of
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.errors import SftrlError
from tests.rows import bare

BUILDERS = (route_rl_rows, route_sft_rows, route_suboptimal_rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cities")
    build_city(made / "home", routes=60, pictures=False)
    build_city(made / "away", "marble", 1, 10, pictures=False)
    return made


@pytest.fixture(scope="module")
def sets(folder):
    return read_route_set(folder / "home"), read_route_set(folder / "away" / "route_infos.json")


def source(sets, splits="id", **changes):
    return RouteSource([sets[0]], [sets[1]], splits, **changes)


def rows_of(tables):
    return pa.concat_tables(tables).to_pylist()


def facts_of(row):
    return json.loads(row["extra_info"]["facts"])


@pytest.mark.parametrize("split", list(ROUTE_SPLITS))
@pytest.mark.parametrize("profile", ["exact", "authors"])
@pytest.mark.parametrize("template", ["default", "compact"])
def test_every_split_accepts_its_own_answers(tmp_path, sets, split, profile, template):
    path = tmp_path / "rows.parquet"
    play = PlaySettings(profile=profile, template=template, max_attempts=3)
    for builder, dialogues in zip(BUILDERS, (0, 80, 80), strict=True):
        write_rows(path, builder(source(sets, split, train=False, settings=play), 80))
        report = validate_file(path)
        assert (report.rows, report.sft_rows, report.turns) == (80, dialogues, dialogues)
        assert dict(report.splits) == {split: 80}
        (first,) = pq.read_table(path).slice(0, 1).to_pylist()
        assert first["data_source"] == f"virl_l/{split}" and first["ability"] == "navigation"
        relative = split.startswith("rule")
        assert facts_of(first)["action_space"] == ("relative" if relative else "absolute")


def test_an_sft_row_is_a_point_with_its_history(sets):
    rows = rows_of(route_sft_rows(source(sets), 60))
    episode = make_episode(facts_of(rows[0]))
    places = []
    for row in rows:
        begun = make_episode(facts_of(row))
        places.append(begun.first_point)
        assert row["prompt"] == begun.messages() == bare(row["messages"][:-1])
        assert row["train_turns"] == [len(row["messages"]) - 1]
        if row["prompt"] == episode.messages() and not episode.done:
            episode.submit(row["messages"][-1]["content"])
    assert episode.solved, "the rows of a route are its points, in order"
    assert places[:4] == [0, 1, 2, 3] and places.count(0) > 2
    assert make_episode(facts_of(rows[1])).submit(rows[1]["messages"][-1]["content"]).reward == 1


def test_failed_tries_are_wrong_and_carry_no_loss(sets):
    play = PlaySettings(max_attempts=3)
    rows = rows_of(route_suboptimal_rows(source(sets, settings=play), 200))
    counts = set()
    for row in rows:
        begun = make_episode(facts_of(row))
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        steps = [begun.submit(answer) for answer in answers]
        assert [step.attempt.verdict.correct for step in steps] == [False] * (len(steps) - 1) + [True]
        assert row["train_turns"] == [len(row["messages"]) - 1]
        counts.add(len(steps))
    assert counts == {2, 3}
    outcomes = {step.attempt.verdict.outcome for step in steps}
    assert outcomes <= {"correct", "wrong_action", "wrong_observation"}
    with pytest.raises(SftrlError, match="mistakes is"):
        next(route_suboptimal_rows(source(sets, settings=PlaySettings(max_attempts=1)), 5, (1, 1)))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_longer_file_starts_with_the_same_rows(sets, builder):
    mixture = source(sets, ("id", "rule_ood"), seed=3)
    short, long = rows_of(builder(mixture, 37)), rows_of(builder(mixture, 90))
    assert long[:37] == short and [row["extra_info"]["index"] for row in long] == list(range(90))
    assert {row["extra_info"]["split"] for row in long} == {"id", "rule_ood"}
    other = rows_of(builder(source(sets, ("id", "rule_ood"), seed=4), 37))
    assert other != short


def test_every_route_once_and_then_again_with_other_rails(sets):
    seen = [route for route in sets[0].routes if not held_out(route, 0.1)]
    assert 0 < len(seen) < 60
    found = list(islice(walks(source(sets)), 2 * len(seen)))
    laps = [[walk.track.index for walk in part] for part in (found[: len(seen)], found[len(seen) :])]
    assert sorted(laps[0]) == sorted(laps[1]) == sorted(route.index for route in seen)
    assert laps[0] != laps[1] and len({walk.rail_seed for walk in found}) == len(found)


def test_routes_of_several_cities_are_walked_equally_often(sets):
    both = RouteSource(list(sets), splits=("id", "rule_ood"), holdout=0.2)
    apart = [held_out_indices(found.routes, 0.2) for found in sets]
    seen = [
        [r for i, r in enumerate(found.routes) if i not in out]
        for found, out in zip(sets, apart, strict=True)
    ]
    lap = sum(map(len, seen))
    found = list(islice(walks(both), 4 * lap))
    for split in range(2):
        for walked in (found[split : 2 * lap : 2], found[2 * lap + split :: 2]):
            starts = sorted(walk.track.start.geocode for walk in walked)
            assert starts == sorted(
                both.track(one, r).start.geocode for one, part in zip(sets, seen, strict=True) for r in part
            )


def test_a_track_is_laid_once_for_its_check_and_all_files(sets, monkeypatch):
    laid = []

    def counted(route, *args):
        laid.append(route)
        return track_of(route, *args)

    monkeypatch.setattr(virl_sources, "track_of", counted)
    fresh = [replace(found, tracks={}) for found in sets]
    checked, _ = check_routes(source(fresh))
    for split in ("id", "rule_ood", "visual_ood"):
        assert len(list(islice(walks(replace(checked, splits=split, seed=3)), 200))) == 200
    assert len(laid) == 70 == len(set(laid))
    few = replace(checked, points_per_leg=2)
    other = next(walks(few)).track
    assert len(laid) == 71 and other == track_of(laid[-1], few.settings, fresh[0].panoramas, 2)


def test_splits_share_routes_only_where_they_should(tmp_path, sets):
    files = {}
    for name, made in (
        ("train", route_sft_rows(source(sets, seed=5), 3000)),
        *((split, route_rl_rows(source(sets, split, train=False), 40)) for split in ROUTE_SPLITS),
    ):
        files[name] = tmp_path / f"{name}.parquet"
        write_rows(files[name], made)
    found = {name: inspect_file(path).tasks["virl"] for name, path in files.items()}
    assert found["id"].rails == found["rule_ood"].rails, "both rules are tested on the same rails"
    assert found["id"].routes <= found["train"].routes
    assert not found["id"].rails & found["train"].rails
    for name in ("id_unseen", "rule_ood_unseen", "visual_ood"):
        assert found[name].routes and not found[name].routes & found["train"].routes
    text = write_card(list(files.values()), tmp_path / "card.md")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["train", "3,000", "SFT", "id", "absolute", "5", "default", "text"] in [line[:8] for line in lines]
    start = lines.index(["", "train", *ROUTE_SPLITS]) + 2
    assert [int(cell) for cell in lines[start + 2][1:4]] == [0, 0, len(found["id_unseen"].routes)]


def test_images_come_with_the_rows(tmp_path):
    build_city(tmp_path / "city", "night", 2, 3, width=64)
    routes = read_route_set(tmp_path / "city")
    play = PlaySettings(modality="image", street_views=str(routes.street_views), image_size=56)
    walked = RouteSource([routes], splits="id", settings=play, holdout=0.0)
    for builder in BUILDERS:
        for images in ("draw", "embed"):
            path = tmp_path / f"{builder.__name__}-{images}.parquet"
            write_rows(path, builder(walked, 9, images=images))
            assert validate_file(path).pictures == (9 if images == "embed" else 0)
    rows = pq.read_table(path).to_pylist()
    assert rows[0]["data_source"] == "virl_vl/id"
    assert rows[0]["images"] != rows[1]["images"], "each point has a picture of its own"


def test_without_street_views_images_are_refused(sets):
    with pytest.raises(SftrlError, match="street_views"):
        source(sets, settings=PlaySettings(modality="image"))


def test_memory_is_that_of_a_row_group(tmp_path, sets):
    peaks = []
    for rows in (3000, 6000):
        tracemalloc.start()
        write_rows(tmp_path / "rows.parquet", route_sft_rows(source(sets), rows))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": "rule_odd"}, "Did you mean 'rule_ood'"),
        ({"splits": ()}, "at least one split"),
        ({"splits": "visual_ood", "away": ()}, "needs routes of other cities"),
        ({"holdout": 1.0}, "'id': none of the 60 routes"),
        ({"splits": "id_unseen", "holdout": 0.0}, "held_out with a holdout of 0"),
        ({"holdout": 1.5}, "holdout is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_sources(sets, changes, words):
    with pytest.raises(SftrlError, match=words):
        next(walks(RouteSource(**{"home": [sets[0]], "away": [sets[1]], **changes})))


def test_wrong_splits():
    with pytest.raises(SftrlError, match="Did you mean 'held_out'"):
        register_route_split("mine", part="heldout")
    with pytest.raises(SftrlError, match="action space"):
        register_route_split("mine", action_space="sideways")
    with pytest.raises(SftrlError, match="other routes than 'id'"):
        register_route_split("mine", part="held_out", routes_of="id")
    with pytest.raises(SftrlError, match="registered already"):
        register_route_split("id")


def test_a_template_whose_answers_cannot_be_read_is_refused(tmp_path, sets):
    from sftrl_ext.envs.virl.prompts import load_template

    folder = load_template.__globals__["Path"](load_template.__code__.co_filename).parent / "templates"
    text = (folder / "compact.yaml").read_text().replace('"action": "$action"', '"move": "$action"')
    (tmp_path / "mine.yaml").write_text(text)
    play = PlaySettings(template=str(tmp_path / "mine.yaml"))
    with pytest.raises(SftrlError, match="its own answer"):
        next(route_sft_rows(source(sets, settings=play), 3))


def request(out, **changes):
    return DataOptions(**(dict(kind="rl", task="virl", rows=10, out=out) | changes))


def test_the_command_line_makes_a_city_and_its_rows(tmp_path, capsys):
    city, out = str(tmp_path / "city"), str(tmp_path / "rows.parquet")
    assert main(["data", "virl-city", "--rows", "20", "--seed", "3", "--style", "night", "--out", city]) == 0
    assert "20 routes" in capsys.readouterr().out
    assert not (tmp_path / "city" / "street_views").exists()
    for kind in ("rl", "sft", "suboptimal"):
        words = ["data", kind, "--task", "virl", "--routes", city, "--split", "id,rule_ood", "--rows", "30"]
        assert main([*words, "--out", out]) == 0
        assert main(["validate", out]) == 0
        assert "30 rows are valid" in capsys.readouterr().out
    assert {facts_of(row)["max_attempts"] for row in pq.read_table(out).to_pylist()} == {2}


def spoilt_city(folder):
    """Twelve routes with pictures: one whose text is broken, one panorama cut short, one without metadata."""
    city = build_city(folder, routes=12, width=64).parent
    routes, count = json.loads((city / "route_infos.json").read_text())
    routes[3]["milestone_info"] = "{ nonsense"
    (city / "route_infos.json").write_text(json.dumps([routes, count]))
    tracks = {r.index: r for r in read_route_set(city, skip_bad=True).routes}
    panoramas = read_route_set(city, skip_bad=True).panoramas
    start = {index: panoramas.nearest(route.start)[1] for index, route in tracks.items()}
    cut = city / "street_views" / f"{start[5]}.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    lost = city / "street_views" / f"{start[7]}.metadata.json"
    lost.unlink()
    return city, cut, lost


def test_bad_routes_and_pictures_are_named_or_left_out(tmp_path, capsys):
    city, cut, lost = spoilt_city(tmp_path / "city")
    out = tmp_path / "rows.parquet"
    words = ["data", "rl", "--task", "virl", "--routes", str(city), "--modality", "image"]
    words += ["--image-size", "64x64", "--holdout", "0", "--rows", "40", "--out", str(out)]
    assert main(words) == 2
    assert "route 3" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--skip-bad"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for problem in ("route 3:", "route 5:", "route 7:", cut.name, lost.name):
        assert problem in told
    walked = {facts_of(row)["route"]["index"] for row in pq.read_table(out).to_pylist()}
    assert walked and not walked & {3, 5, 7}
    assert main(["validate", str(out)]) == 0


def test_a_missing_panorama_is_a_point_left_out_or_an_error(tmp_path, capsys):
    city = build_city(tmp_path / "city", routes=6, pictures=False).parent
    (city / "gps_pano_mapping.pkl").unlink()
    whole = read_route_set(city)
    laid = [track_of(route, PlaySettings(), whole.panoramas) for route in whole.routes]
    ends = {place.pano_id for track in laid for place in (track.start, *(leg.end for leg in track.legs))}
    kept = {point: name for point, name in whole.panoramas.places.items() if name in ends}
    PanoramaMap(kept).save(city / "gps_pano_mapping.json")
    words = ["data", "sft", "--task", "virl", "--routes", str(city), "--rows", "30", "--holdout", "0"]
    words += ["--out", str(tmp_path / "rows.parquet")]
    assert main([*words, "--missing-panorama", "error"]) == 2
    assert "no panorama less than 20 m away" in capsys.readouterr().err
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"route_infos.json: [1-9][0-9]* points between milestones, which have no panorama", said)
    assert main([*words, "--missing-panorama", "skp"]) == 2
    assert "Did you mean 'skip'" in capsys.readouterr().err


def test_a_map_of_panoramas_is_converted(tmp_path, capsys):
    city = build_city(tmp_path / "city", routes=6, pictures=False).parent
    out = tmp_path / "map.parquet"
    words = ["data", "panoramas", "--from", str(city / "gps_pano_mapping.pkl"), "--out", str(out)]
    assert main(words) == 0
    assert f"{len(pq.read_table(out))} places" in capsys.readouterr().out
    assert PanoramaMap.load(out) == PanoramaMap.load(city / "gps_pano_mapping.pkl")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "needs routes"),
        ({"kind": "sfx"}, "Did you mean 'sft'"),
        ({"task": "vril"}, "Did you mean 'virl'"),
        ({"suits": "red"}, "--suits is for task 'general_points'"),
        ({"kind": "import"}, "expected --from data.json"),
        ({"kind": "virl-city", "style": "marbel"}, "Did you mean 'marble'"),
        ({"task": "general_points", "routes": "x"}, "expected --task virl"),
        ({"routes": "nowhere"}, "nowhere"),
        ({"routes": "nowhere", "image_size": "30x20", "modality": "image"}, "expected a square"),
    ],
)
def test_wrong_requests(tmp_path, change, words):
    with pytest.raises(SftrlError, match=words):
        build_file(request(tmp_path / "out", **change))


def test_the_authors_routes_are_imported_as_they_are(tmp_path):
    record = {
        "image": None,
        "conversations": [{"from": "human", "value": "Go."}, {"from": "gpt", "value": "{}"}],
    }
    (tmp_path / "data.json").write_text(json.dumps([record] * 3))
    assert (
        import_authors(tmp_path / "data.json", tmp_path / "rows.parquet", config=TaskConfig(kind="virl")) == 3
    )
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.schema == SCHEMA and rows["data_source"].to_pylist() == ["virl_l/imported"] * 3
    assert validate_file(tmp_path / "rows.parquet").turns == 3
    with pytest.raises(SftrlError, match="Did you mean 'virl'"):
        import_authors(tmp_path / "data.json", tmp_path / "rows.parquet", config=TaskConfig(kind="vrl"))


def test_a_route_set_of_ones_own(sets):
    few = RouteSet("mine", sets[0].routes[:2])
    assert len(rows_of(route_rl_rows(RouteSource([few], holdout=0.0), 5))) == 5


def test_a_small_set_of_routes_has_a_held_out_one(sets):
    routes = sets[0].routes
    seen = [route for route in routes if not held_out(route, 0.1)]
    for count in (2, 3, 9):
        few = held_out_indices(seen[:count], 0.1)
        assert len(few) == 1 and few <= set(range(count))
    apart = held_out_indices(routes, 0.1)
    assert apart == {i for i, route in enumerate(routes) if held_out(route, 0.1)}
    assert not held_out_indices(seen, 0.0) and not held_out_indices(seen[:1], 0.1)
    assert held_out_indices(seen[:3], 1.0) == {0, 1, 2}
    hidden = [route for route in routes if held_out(route, 0.1)]
    assert len(held_out_indices(hidden, 0.1)) == len(hidden) - 1
