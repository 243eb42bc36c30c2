"""Rows of an arm from a file: imported by the data stage, checked, repeated, and part of the stage's key."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.build import build_file
from data_prep.general_points import rl_rows, sft_rows
from data_prep.options import DataOptions
from data_prep.origins import read_origins
from data_prep.sources import Source
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, load_recipe, to_yaml
from sftrl_ext.experiments.stage_cache import stage_key
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.files import write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import PROGRESS_VARIABLE, StageProgress, read_progress

SMALL = ["budget.base.rows=64", "budget.dialogues.rows=32", "budget.init.rows=32", "budget.eval.hands=4"]
COMPACT = PlaySettings(template="compact")


def conversations(count, seed=5, settings=COMPACT):
    """Records of the authors' format about hands of ours."""
    table = next(sft_rows(Source("id", seed=seed, settings=settings), count))
    who = {"user": "human", "assistant": "gpt", "system": "system"}
    return [
        {"image": None, "conversations": [{"from": who[m["role"]], "value": m["content"]} for m in row]}
        for row in table["messages"].to_pylist()
    ]


def write_json(path, records):
    path.write_text(json.dumps(records))
    return path


def built(root, *words, name="fig6_gp_l"):
    recipe = load_recipe(name, "smoke", [*SMALL, *words])
    layout = RunLayout(root)
    build_data(recipe, layout)
    return recipe, layout


def messages(path):
    return pq.read_table(path)["messages"].to_pylist()


def test_an_authors_file_is_imported_and_repeated(tmp_path):
    path = write_json(tmp_path / "data.json", conversations(20))
    recipe, layout = built(tmp_path / "run", f"arms.sft.rows={path}", "arms.sft.budget.rows=50")
    rows = messages(layout.rows("sft-file"))
    assert len(rows) == 50
    first = [[turn["value"] for turn in record["conversations"]] for record in json.loads(path.read_text())]
    assert [[turn["content"] for turn in row] for row in rows] == [*first, *first, *first[:10]]
    assert not (layout.data / "sft-s0.parquet").exists() and (layout.data / "rl-s0.parquet").exists()
    assert validate_file(layout.rows("sft-file")).own_prompts == 0
    origin = read_origins(layout.origins)["sft-file"]
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (origin.file, origin.rows, origin.written, origin.templates) == (
        str(path),
        20,
        50,
        {"compact": 20},
    )
    card = (layout.data / "dataset_card.md").read_text()
    assert f"| sft-file | `{path}` | `{origin.sha256[:16]}` | 20 | 50 | 0 |" in card
    [sft] = [stage for stage in make_plan(recipe, layout.root) if stage.arm == "sft"]
    assert any(word == f"data.train_files={layout.rows('sft-file')}" for word in sft.command)


def test_a_longer_file_is_read_from_its_start(tmp_path):
    write_rows(tmp_path / "mine.parquet", sft_rows(Source("id", seed=7, settings=COMPACT), 90))
    _, layout = built(tmp_path / "run", f"arms.sft.rows={tmp_path}/mine.parquet", "arms.sft.budget.rows=40")
    assert messages(layout.rows("sft-file")) == messages(tmp_path / "mine.parquet")[:40]


def test_prompts_of_rl_come_from_a_parquet_file(tmp_path):
    write_rows(tmp_path / "mine.parquet", rl_rows(Source("all_5", seed=7, settings=COMPACT), 40))
    words = [f"arms.rl.rows={tmp_path}/mine.parquet", "arms.rl.budget.rows=40", "sweep.seeds=[0,1]"]
    recipe, layout = built(tmp_path / "run", *words)
    rows = pq.read_table(layout.rows("rl-file")).to_pylist()
    assert len(rows) == 40 and {row["data_source"] for row in rows} == {"gp_l/all_5"}
    stages = [stage for stage in make_plan(recipe, layout.root) if stage.arm == "rl"]
    assert len(stages) == 2  # both seeds on one file
    assert all(f"data.train_files={layout.rows('rl-file')}" in stage.command for stage in stages)


def test_routes_of_the_authors_file_train_an_sft_arm(tmp_path):
    turns = [("human", "Where now?"), ("gpt", '{"action": "forward()"}')]
    records = [{"conversations": [{"from": who, "value": text} for who, text in turns]}] * 3
    path = write_json(tmp_path / "data.json", records)
    words = [f"arms.sft.rows={path}", "arms.sft.budget.rows=40", "task.routes.home.routes=20"]
    _, layout = built(tmp_path / "run", *words, name="fig6_virl_l")
    assert len(messages(layout.rows("sft-file"))) == 40
    assert read_origins(layout.origins)["sft-file"].own_prompts == 3
    assert "| sft-file |" in (layout.data / "dataset_card.md").read_text()


def test_paths_are_absolute_in_the_run(tmp_path, monkeypatch):
    write_json(tmp_path / "data.json", conversations(4))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("fig6_gp_l", "smoke", ["arms.sft.rows=data.json"])
    write_text(tmp_path / "recipe.yaml", to_yaml(recipe))
    monkeypatch.chdir("/")
    assert from_yaml(tmp_path / "recipe.yaml").arms["sft"].rows == str(tmp_path / "data.json")


def test_a_file_beside_the_recipe_is_found(tmp_path):
    write_json(tmp_path / "data.json", conversations(4))
    text = (Path(__file__).parents[3] / "recipes" / "fig6_gp_l.yaml").read_text()
    text = text.replace("sft: {kind: sft}", "sft: {kind: sft, rows: data.json}").replace("also:", "# also:")
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(tmp_path / "mine.yaml", "smoke").arms["sft"].rows == str(tmp_path / "data.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arms.sft.rows=/none/data.json"], r"arms.sft.rows: /none/data.json: no such file"),
        (["arms.sft.rows=experts"], r"Did you mean 'expert'.* A file of rows ends in .parquet or .json"),
        (["arms.rl.rows={json}"], r"arms.rl.rows: .*data.json holds answers, which RL does not train on"),
        (["arms.sft.rows={json}", "arms.sft.splits=[id]"], r"arms.sft.splits: has no effect"),
        (["arms.sft.rows={json}", "arms.sft.max_attempts=2"], r"arms.sft.max_attempts: has no effect"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(words, message, tmp_path):
    path = write_json(tmp_path / "data.json", conversations(2))
    with pytest.raises(SftrlError, match=message):
        load_recipe("fig6_gp_l", "smoke", [word.format(json=path) for word in words])


def refused(tmp_path, file, arm="sft", name="fig6_gp_l", words=()):
    with pytest.raises(SftrlError) as error:
        built(tmp_path / "run", f"arms.{arm}.rows={file}", f"arms.{arm}.budget.rows=40", *words, name=name)
    assert not list((tmp_path / "run" / "data").glob("*-file*"))
    return str(error.value)


def test_errors_name_key_file_row_and_column(tmp_path):
    records = conversations(5)
    answer = records[3]["conversations"][-1]
    answer["value"] = answer["value"].replace("=24", "+1=24")
    path = write_json(tmp_path / "data.json", records)
    text = refused(tmp_path, path)
    assert text.startswith(
        f"arms.sft.rows: {path}: record 3: column 'messages': the answer at turn 1 carries"
    )
    assert "is graded 'wrong_value'" in text or "is graded 'wrong_numbers'" in text
    write_rows(tmp_path / "prompts.parquet", rl_rows(Source("id", settings=COMPACT), 4))
    text = refused(tmp_path, tmp_path / "prompts.parquet")
    assert "prompts.parquet: row 0: column 'messages' is empty, as in prompts for RL; expected the" in text
    pq.write_table(pq.read_table(tmp_path / "prompts.parquet").drop(["prompt"]), tmp_path / "less.parquet")
    assert "column 'prompt' is missing; found data_source" in refused(tmp_path, tmp_path / "less.parquet")
    write_json(tmp_path / "empty.json", [])
    assert "empty.json: no rows; expected at least one" in refused(tmp_path, tmp_path / "empty.json")
    (tmp_path / "cut.json").write_text(json.dumps(conversations(3))[:-40])
    assert "cut.json: record 2: not JSON" in refused(tmp_path, tmp_path / "cut.json")
    images = dict(template="compact", modality="image", image_size="64x64")
    build_file(DataOptions("rl", tmp_path / "images.parquet", rows=4, **images))
    text = refused(tmp_path, tmp_path / "images.parquet", "rl")
    assert "row 0: the fact 'modality' is 'image', expected 'text'" in text


def test_facts_of_another_task_are_refused(tmp_path):
    write_rows(tmp_path / "cards.parquet", sft_rows(Source("id", settings=COMPACT), 40))
    words = ["task.routes.home.routes=20"]
    text = refused(tmp_path, tmp_path / "cards.parquet", name="fig6_virl_l", words=words)
    assert "row 0: the fact 'task' is 'general_points', expected 'virl'" in text


def keys(recipe, layout):
    found = {}
    for stage in make_plan(recipe, layout.root):
        found[stage.name] = stage_key(recipe, stage, layout, {k: v for k, v in found.items() if v})
    return found


def test_the_key_of_a_stage_follows_the_content_of_its_file(tmp_path):
    path = write_json(tmp_path / "data.json", conversations(20))
    words = [f"arms.sft.rows={path}", "arms.sft.budget.rows=40"]
    one = keys(*built(tmp_path / "one", *words))
    shutil.copy(path, tmp_path / "copy.json")
    moved = [f"arms.sft.rows={tmp_path / 'copy.json'}", words[1]]
    assert keys(*built(tmp_path / "two", *moved)) == one
    write_json(path, conversations(20, seed=6))
    other = keys(*built(tmp_path / "three", *words))
    assert {name for name in one if one[name] != other[name]} == {"sft-lr0.0002-s0"}


def test_progress_is_in_the_log_and_its_file(tmp_path, monkeypatch, capsys):
    path = write_json(tmp_path / "data.json", conversations(20, settings=PlaySettings()))
    progress = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(progress))
    built(tmp_path / "run", f"arms.sft.rows={path}", "arms.sft.budget.rows=40")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data.json: 20 of 40 rows"
    assert lines[1].startswith("data.json: read 20 rows, repeated to 40; SHA-256 ")
    assert lines[2].startswith(
        "data.json: 20 rows have prompts of the template their own; this run evaluates"
    )
    files = len(list((tmp_path / "run/data").glob("*.parquet")))
    assert read_progress(progress) == StageProgress(files, files, "files", "eval-rule_ood_unseen: 4 rows")


def test_pictures_of_the_file_are_what_sft_sees(tmp_path):
    from sftrl_ext.training.dataset_rows import Dialogues

    pytest.importorskip("verl")
    settings = PlaySettings(template="compact", modality="image")
    records = conversations(3, settings=settings)
    for number, record in enumerate(records[:2]):
        Image.new("RGB", (64, 48), (200, number, 0)).save(tmp_path / f"{number}.png")
        record["image"] = f"{number}.png"
    records[2]["image"] = ["1.png"]
    records.append(conversations(1)[0])  # words, between rows with pictures
    path = write_json(tmp_path / "data.json", records)
    words = [f"arms.sft.rows={path}", "arms.sft.budget.rows=40"]
    recipe, layout = built(tmp_path / "run", *words, name="fig6_gp_vl")
    rows = Dialogues(str(layout.rows("sft-file")))
    seen = [[image.getpixel((0, 0)) for image in rows.row(number).images] for number in range(5)]
    assert seen == [[(200, 0, 0)], [(200, 1, 0)], [(200, 1, 0)], [], [(200, 0, 0)]]
    one = keys(recipe, layout)
    Image.new("RGB", (64, 48), (7, 7, 7)).save(tmp_path / "0.png")
    other = keys(*built(tmp_path / "other", *words, name="fig6_gp_vl"))
    assert {name for name in one if one[name] != other[name]} == {"sft-lr0.0002-s0"}
    answer = records[2]["conversations"][-1]
    right = answer["value"]
    answer["value"] = right.replace("=24", "+1=24")
    text = refused(tmp_path / "wrong", write_json(path, records), name="fig6_gp_vl")
    assert "record 2: column 'messages': the answer at turn 1 carries loss but is graded" in text
    answer["value"] = right
    records[1]["image"] = "none.png"
    write_json(path, records)
    text = refused(tmp_path / "refused", path, name="fig6_gp_vl")
    assert f"record 1: 'image' names {tmp_path}/none.png; expected the path of a file" in text
