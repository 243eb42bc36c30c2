"""The authors' folders as they are: data, evaluation by city, and what a report says of synthetic cities."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from data_prep.validate import validate_file
from data_prep.virl_sources import read_route_set, read_route_sets
from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.known_cities import CITIES, nearest_city
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.evaluate import summarise
from sftrl_ext.experiments.evaluation.one_model.console_tables import city_table
from sftrl_ext.experiments.evaluation.targets import EvalSet, load_eval_set
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.layout import RunLayout
from tests.authors_files import CITIES as PLACES
from tests.authors_files import missing_between, write_city, write_mini_benchmark

SMALL = ["budget.base.rows=200", "budget.dialogues.rows=20", "budget.init.rows=20", "budget.sft.rows=40"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The authors' two folders, New York and the mini benchmark, with street views."""
    root = tmp_path_factory.mktemp("VIRL_routes")
    return write_city(root / "nyc_1k_routes", "New York", 14), write_mini_benchmark(root / "VLN_mini")


@pytest.fixture(scope="module")
def built(folders, tmp_path_factory):
    """The files of both recipes at smoke, with no key but the paths."""
    home, away = folders
    paths = {
        "fig6_virl_l": [f"task.routes.home.path={home}"],
        "fig7_virl_vl": [f"task.routes.home.path={home}", f"task.routes.away=[{{path: {away}}}]"],
    }
    layouts = {}
    for name, words in paths.items():
        layouts[name] = RunLayout(tmp_path_factory.mktemp(name))
        build_data(load_recipe(name, "smoke", [*words, *SMALL]), layouts[name])
    return layouts


def facts_in(path):
    return [json.loads(row["facts"]) for row in pq.read_table(path)["extra_info"].to_pylist()]


def test_the_folders_have_what_the_authors_files_have(folders):
    for folder, routes in zip(folders, (14, 18), strict=True):
        entries, counter = json.loads((folder / "route_infos.json").read_text())
        assert len(entries) == routes < counter
        assert missing_between(folder) > 0


@pytest.mark.parametrize("name", ["fig6_virl_l", "fig7_virl_vl"])
def test_rows_are_built_from_them_with_no_key_but_the_paths(built, name):
    layout = built[name]
    for file in sorted(layout.data.glob("*.parquet")):
        assert validate_file(file, limit=10).rows > 0
    trained = [facts["route"]["city"] for facts in facts_in(layout.rows("sft-s0"))]
    assert set(trained) == {"New York"}
    card = (layout.data / "dataset_card.md").read_text()
    assert (
        "nyc_1k_routes/route_infos.json" in card
        and "points between milestones, which have no panorama" in card
    )


def test_no_walk_passes_a_point_without_a_panorama(built, folders):
    places = {tuple(place) for place in read_route_set(folders[0]).panoramas.places}
    for facts in facts_in(built["fig6_virl_l"].eval_rows("id")):
        for point in make_episode(facts).rail.points:
            assert point.geocode in places and point.pano_id is not None
    views = folders[1] / "street_views"
    for facts in facts_in(built["fig7_virl_vl"].eval_rows("visual_ood")):
        assert all((views / f"{point.pano_id}.jpg").is_file() for point in make_episode(facts).rail.points)


def test_the_mini_benchmark_is_evaluated_route_by_route(built):
    walked = facts_in(built["fig7_virl_vl"].eval_rows("visual_ood"))
    assert len(walked) == 18 and sorted(facts["route"]["index"] for facts in walked) == list(range(18))
    assert Counter(facts["route"]["city"] for facts in walked) == dict.fromkeys(PLACES, 2)
    assert set(PLACES) == set(CITIES)


def test_every_split_has_routes_of_a_small_folder(built):
    for split in ("id", "id_unseen", "rule_ood", "rule_ood_unseen"):
        assert len(facts_in(built["fig6_virl_l"].eval_rows(split))) == 12
    seen, unseen = (
        {facts["route"]["index"] for facts in facts_in(built["fig6_virl_l"].eval_rows(split))}
        for split in ("id", "id_unseen")
    )
    assert unseen and not seen & unseen


def played(right, responses, solved):
    """An episode that only has its counts."""
    metrics = {"correct_actions": float(right), "responses": float(responses)}
    return PlayedEpisode(solved=solved, metrics=metrics)


def test_records_count_by_city(built):
    chosen = load_eval_set(built["fig7_virl_vl"].eval_rows("visual_ood"))
    cities = [facts["route"]["city"] for facts in chosen.facts]
    record = summarise(chosen, [played(3, 5 if city == "Lagos" else 4, city == "Milan") for city in cities])
    assert record["by_city"]["Milan"] == {
        "episodes": 2, "solved": 2, "correct_actions": 6, "responses": 8,
    }  # fmt: skip
    assert record["by_city"]["Lagos"] == {
        "episodes": 2, "solved": 0, "correct_actions": 6, "responses": 10,
    }  # fmt: skip
    assert list(record["by_city"]) == sorted(PLACES)
    console = Console(file=io.StringIO(), width=100)
    console.print(city_table(record))
    shown = console.file.getvalue()
    assert all(city in shown for city in PLACES) and "60.0" in shown and "75.0" in shown
    one = EvalSet("id", "virl_l/id", load_eval_set(built["fig6_virl_l"].eval_rows("id")).facts)
    assert "by_city" not in summarise(one, [played(1, 1, True) for _ in one.facts])


def spoil(folder):
    """One route whose milestones no panorama is near, and one whose text is broken."""
    routes, counter = json.loads((folder / "route_infos.json").read_text())
    routes[2]["route_results"]["geocode_list"][0] = [0.0, 0.0]
    routes[5]["milestone_info"] = "{ nonsense"
    (folder / "route_infos.json").write_text(json.dumps([routes, counter]))


def test_bad_routes_are_left_out_and_listed_or_refused(folders, tmp_path, capsys):
    shutil.copytree(folders[0], tmp_path / "nyc", ignore=shutil.ignore_patterns("street_views"))
    spoil(tmp_path / "nyc")
    words = [f"task.routes.home.path={tmp_path / 'nyc'}", *SMALL]
    layout = RunLayout(tmp_path / "run")
    build_data(load_recipe("fig6_virl_l", "smoke", words), layout)
    for text in (capsys.readouterr().out, (layout.data / "dataset_card.md").read_text()):
        assert "route 2: milestone 0 at (0.0, 0.0) has no panorama" in text and "route 5: " in text
    assert not {facts["route"]["index"] for facts in facts_in(layout.rows("base"))} & {2, 5}
    with pytest.raises(SftrlError, match="route 5: field 'milestone_info'"):
        build_data(load_recipe("fig6_virl_l", "smoke", [*words, "task.routes.skip_bad=false"]), layout)
    strict = [*words, "task.routes.missing_panorama=error"]
    with pytest.raises(SftrlError, match="none of the 1 routes"):  # the others all lack some panorama
        build_data(load_recipe("fig6_virl_l", "smoke", strict), layout)


def test_a_folder_of_cities_is_read_city_by_city(folders, tmp_path):
    for name in ("Milan", "Lagos"):
        write_city(tmp_path / "subset" / f"{name}_somewhere", name, 2, pictures=False)
    sets = read_route_sets(tmp_path / "subset")
    assert [found.routes[0].city for found in sets] == ["Lagos", "Milan"]
    assert read_route_sets(folders[1])[0].routes == read_route_set(folders[1]).routes
    with pytest.raises(SftrlError, match="route_infos.json: no such file"):
        read_route_sets(tmp_path)
    assert nearest_city((48.85, 2.35)) == ""
    build_city(tmp_path / "made", "brick", 3, 4, pictures=False)
    assert {route.city for route in read_route_set(tmp_path / "made").routes} == {"brick 3"}
    shutil.move(tmp_path / "subset" / "Milan_somewhere", tmp_path / "paris")
    path = tmp_path / "paris" / "route_infos.json"
    path.write_text(path.read_text().replace("[45.", "[48."))
    assert {route.city for route in read_route_set(tmp_path / "paris").routes} == {"paris"}


def test_a_plan_says_which_cities_are_synthetic(folders, tmp_path):
    def title(name, *words):
        return make_plan(load_recipe(name, "node", words), tmp_path)[0].title

    home, away = f"task.routes.home.path={folders[0]}", f"task.routes.away=[{{path: {folders[1]}}}]"
    assert "task.routes.home: synthetic cities" in title("fig6_virl_l")
    assert "task.routes.home and task.routes.away: synthetic cities" in title("fig7_virl_vl")
    assert "(task.routes.away: synthetic cities" in title("fig7_virl_vl", home)
    for whole in (title("fig6_virl_l", home), title("fig7_virl_vl", home, away), title("fig6_gp_l")):
        assert "synthetic" not in whole
