"""Rows of Countdown: made up, from a published list, and as an evaluation set."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.build import build_file
from data_prep.countdown_rows import CountdownRows
from data_prep.options import DataOptions
from data_prep.validate import validate_file
from sftrl_ext.envs.countdown.numbers import is_solvable
from sftrl_ext.envs.general_points.hands import is_held_out
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe

GAMES = [([44, 19, 35], 98), ([63, 95, 96], 64), ([3, 3, 8, 8], 24), ([1, 1, 1], 99), ([5, 7, 2], 17)]


@pytest.fixture
def published(tmp_path):
    """A file with the columns of Countdown-Tasks-3to4; one of its games has no solution."""
    path = tmp_path / "published.parquet"
    columns = {"target": [target for _, target in GAMES], "nums": [numbers for numbers, _ in GAMES]}
    pq.write_table(pa.table(columns), path)
    return path


def built(tmp_path, kind="rl", **options):
    path = tmp_path / f"{kind}.parquet"
    build_file(DataOptions(kind, path, task="countdown", **options))
    return [json.loads(row["extra_info"]["facts"]) for row in pq.read_table(path).to_pylist()], path


def test_games_are_in_the_ranges_of_their_split(tmp_path):
    facts, _ = built(tmp_path, split="id,id_unseen,ood_more_numbers,ood_large_targets", rows=120)
    for index, game in enumerate(facts):
        numbers, target = game["numbers"], game["target"]
        size = {2: (5,)}.get(index % 4, (3, 4))
        low, high = (101, 200) if index % 4 == 3 else (10, 100)
        assert len(numbers) in size and all(1 <= n <= 99 for n in numbers) and low <= target <= high
        assert is_solvable(numbers, target)
        if index % 4 < 2:
            assert is_held_out(tuple(sorted(numbers)), target) == (index % 4 == 1)


@pytest.mark.parametrize("use", ["all", "any"])
@pytest.mark.parametrize("kind", ["sft", "suboptimal"])
def test_answers_are_graded_as_their_dialogue_says(tmp_path, kind, use):
    _, path = built(tmp_path, kind, rows=60, settings=f"use={use},max_value=20", template="compact")
    report = validate_file(path)
    assert report.rows == report.turns == 60
    first = path.read_bytes()
    _, again = built(tmp_path, kind, rows=60, settings=f"use={use},max_value=20", template="compact")
    assert again.read_bytes() == first


def test_training_rows_come_from_a_published_list(tmp_path, published):
    facts, _ = built(tmp_path, rows=40, settings=f"file={published}")
    listed = [(game["numbers"], game["target"]) for game in facts]
    solvable = [game for game in GAMES if game != ([1, 1, 1], 99)]
    assert all(game in solvable for game in listed) and len({target for _, target in listed}) > 1


def test_a_published_list_is_an_evaluation_set(tmp_path, published):
    notes = []
    options = DataOptions(
        "given", tmp_path / "g.parquet", task="countdown", split="id_published", source=published
    )
    assert build_file(options, notes.append) == 4
    rows = pq.read_table(options.out).to_pylist()
    assert [json.loads(row["extra_info"]["facts"])["target"] for row in rows] == [98, 64, 24, 17]
    assert {row["data_source"] for row in rows} == {"countdown/id_published"}
    assert validate_file(options.out).rows == 4
    assert notes == [f"left out: 1 games of {published} have no solution that uses all of their numbers"]


def test_a_list_of_rows_of_ours_or_in_csv_is_read_too(tmp_path):
    _, path = built(tmp_path, rows=5)
    config = TaskConfig(name="countdown", kind="countdown")
    make = CountdownRows(config, Path())
    [table] = make.given(path, "id_again", 0)
    assert table.num_rows == 5
    listed = tmp_path / "games.csv"
    listed.write_text('nums,target\n"44, 19, 35",98\n[63 95 96],64\n')
    [table] = make.given(listed, "id_csv", 0, limit=1)
    assert table.num_rows == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_numbers": 2}, "min_numbers and max_numbers are 3 and 2"),
        ({"max_numbers": 7}, "expected at most 6"),
        ({"use": "most"}, "task.settings: use: unknown use of the numbers 'most'"),
        ({"numbers": 3}, "task.settings: keys: unknown key 'numbers'"),
        ({"file": "none.parquet"}, "none.parquet"),
        ({"min_target": 90_000, "max_target": 99_000, "max_value": 2}, "no game with a solution"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, words):
    with pytest.raises(SftrlError, match=words):
        built(tmp_path, rows=1, settings=",".join(f"{key}={value}" for key, value in settings.items()))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.modality=image"], "task.modality"),
        (["task.profile=authors"], "task.profile"),
        (["task.settings.max_numbers=6"], "ood_more_numbers"),
        (["task.settings.uses=any"], "unknown key 'uses'.*Did you mean 'use'"),
    ],
)
def test_a_recipe_is_refused_before_it_runs(overrides, words):
    with pytest.raises(SftrlError, match=words):
        load_recipe("beyond_countdown", "smoke", overrides)


def test_a_recipes_list_is_found_beside_it(published, monkeypatch):
    monkeypatch.chdir(published.parent)
    recipe = load_recipe("beyond_countdown", "smoke", [f"+task.settings.file={published.name}"])
    assert recipe.task.settings["file"] == str(published)
