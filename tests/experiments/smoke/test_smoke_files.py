"""A run at scale smoke whose SFT and RL train on files and whose evaluation has a list of hands."""

import json

import pytest

from data_prep.general_points import rl_rows, sft_rows
from data_prep.origins import read_origins
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

COMPACT = PlaySettings(template="compact")


def test_a_run_trains_on_files_and_plays_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = next(sft_rows(Source("id", seed=5, settings=COMPACT), 48))
    who = {"user": "human", "assistant": "gpt"}
    records = [
        {"image": None, "conversations": [{"from": who[m["role"]], "value": m["content"]} for m in row]}
        for row in table["messages"].to_pylist()
    ]
    (tmp_path / "data.json").write_text(json.dumps(records))
    write_rows("prompts.parquet", rl_rows(Source("id", seed=8, settings=COMPACT), 64))
    (tmp_path / "hands.csv").write_text("cards\nK 5 A 4\nQ K 2 A\n3 3 8 8\nJ 2 2 4\n")
    words = [
        "arms.sft.rows=data.json",
        "arms.rl.rows=prompts.parquet",
        "task.eval_sets={rule_mine: hands.csv}",
    ]
    assert main(["run", "fig6_gp_l", "--scale", "smoke", "--run-dir", "run", *words]) == 0
    layout = RunLayout(tmp_path / "run")
    assert all(stage["status"] == "done" for stage in read_json(layout.state)["stages"])
    assert set(read_origins(layout.origins)) == {"sft-file", "rl-file", "eval-rule_mine"}
    records = [record for record in read_jsonl(layout.records) if record["split"] == "rule_mine"]
    assert {record["arm"] for record in records} == {"base", "init", "sft", "rl"}
    assert all(record["episodes"] == 4 and record["errors"] == 0 for record in records)
    assert "rule_mine" in (layout.report / "report.md").read_text()
    assert "rule_mine" in (layout.data / "dataset_card.md").read_text()
    tokens = list(read_jsonl(layout.tokens("sft-lr0.0002-s0")))
    assert tokens
