"""Reading a run folder: what is missing is noted, what is broken is named."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.runs.run_folder import load_run
from tests.reports.synthetic_run import make_run


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path, points=2, splits=("id", "rule_ood"))


def append(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_everything_is_read(run_dir):
    run = load_run(run_dir)
    assert run.state.model.parameters == 1_050_000
    assert len(run.records) == 2 * (1 + 2 + 2)
    assert {stage.arm for stage in run.stages} == {None, "base", "init", "sft", "rl"}
    assert run.tokens["rl-s0"][4].generated > 0
    assert run.training["sft-s0"][0][0] == 1
    assert run.notes == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("eval/records.jsonl", '{"stage": "rl-s0", "arm": "r'),
        ("eval/records.jsonl", "[1, 2]"),
        ("eval/records.jsonl", '{"stage": "a", "arm": "rl", "split": "id", "episodes": 3, "solved": 4}'),
        ("eval/records.jsonl", '{"stage": "a", "arm": "rl", "split": "id", "episodes": 0, "solved": 0}'),
        ("eval/records.jsonl", '{"stage": "a", "arm": "rl", "split": 7, "episodes": 3, "solved": 1}'),
        ("eval/records.jsonl", '{"stage": "a", "arm": "rl", "split": "id", "episodes": "x", "solved": 1}'),
        ("eval/records.jsonl", "[" * 100_000),
        (
            "eval/records.jsonl",
            '{"stage": "a", "arm": "rl", "split": "id", "episodes": 3, "solved": 1, "recognized_first": 4}',
        ),
        (
            "eval/records.jsonl",
            '{"stage": "a", "arm": "rl", "split": "id", "episodes": 3, "solved": 1, "divergence": 0.1}',
        ),
        (
            "eval/records.jsonl",
            '{"stage": "a", "arm": "rl", "split": "id", "episodes": 3, "solved": 1, '
            '"divergence": {"start": "init@1", "forward": {"nats": 0.1, "se": 0.01}}}',
        ),
        ("eval/episodes.jsonl", '{"arm": "rl", "split": "id", "messages": "hello"}'),
        ("stages/rl-s0/tokens.jsonl", '{"trained_tokens": 3}'),
        ("stages/rl-s0/tokens.jsonl", '{"step": 3, "trained_tokens": "many"}'),
        ("stages/rl-s0/metrics.jsonl", '{"step": 3}'),
    ],
)
def test_a_malformed_line_is_named(run_dir, name, line):
    path = run_dir / name
    number = len(path.read_text().splitlines()) + 1
    append(path, line + "\n")
    with pytest.raises(SftrlError, match=rf"{path.name}, line {number}:"):
        load_run(run_dir)


def test_a_checkpoint_evaluated_twice_counts_once(run_dir):
    path = run_dir / "eval" / "records.jsonl"
    again = json.loads(path.read_text().splitlines()[-1]) | {"solved": 1}
    append(path, json.dumps(again) + "\n")
    run = load_run(run_dir)
    assert len(run.records) == 10
    assert run.records[-1].solved == 1


def test_values_that_are_not_numbers_are_left_out_of_training_metrics(run_dir):
    append(run_dir / "stages/rl-s0/metrics.jsonl", '{"step": 99, "data": {"a": NaN, "b": 1, "c": "x"}}\n')
    assert load_run(run_dir).training["rl-s0"][-1] == (99, {"b": 1.0})


def test_parts_may_be_missing(run_dir):
    (run_dir / "state.json").unlink()
    (run_dir / "recipe.yaml").unlink()
    (run_dir / "eval" / "episodes.jsonl").unlink()
    notes = " ".join(load_run(run_dir).notes)
    assert "state.json" in notes and "recipe.yaml" in notes and "episodes" in notes


def test_no_run_folder(tmp_path):
    with pytest.raises(SftrlError, match="no such run folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(SftrlError, match="not a run folder"):
        load_run(tmp_path)


def test_broken_state_is_named(run_dir):
    (run_dir / "state.json").write_text("{")
    with pytest.raises(SftrlError, match=r"state\.json"):
        load_run(run_dir)
    (run_dir / "state.json").write_text('{"stages": [{"kind": "sft"}]}')
    with pytest.raises(SftrlError, match=r"'stages\[0\]\.name'"):
        load_run(run_dir)


def test_a_last_line_cut_short_by_a_kill_is_skipped_and_said(run_dir):
    append(run_dir / "eval" / "records.jsonl", '{"stage": "rl-s0", "ar')
    run = load_run(run_dir)
    assert len(run.records) == 10
    assert any("eval/records.jsonl" in note and "cut short" in note for note in run.notes)


def test_launches_of_a_stage_stand_in_for_its_merged_metrics(run_dir):
    folder = run_dir / "stages" / "rl-s0"
    (folder / "metrics-1.jsonl").write_text('{"step": 1, "data": {"a": 1}}\n')
    assert "a" not in load_run(run_dir).training["rl-s0"][0][1]
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics-2.jsonl").write_text('{"step": 1, "data": {"a": 2}}\n{"step": 2, "da')
    assert load_run(run_dir).training["rl-s0"] == [(1, {"a": 2.0})]


@pytest.mark.parametrize(
    ("name", "line", "key"),
    [
        ("stages/rl-s0/tokens.jsonl", '"trained_tokens": Infinity', "trained_tokens"),
        ("stages/rl-s0/tokens.jsonl", '"trained_tokens": -1', "trained_tokens"),
        ("eval/records.jsonl", '"lr": NaN', "lr"),
        ("eval/episodes.jsonl", '"messages": [{"role": {}}]', r"messages\[0\].role"),
    ],
)
def test_numbers_are_finite_and_messages_are_texts(run_dir, name, line, key):
    path = run_dir / name
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, last[:-1] + f", {line}}}", ""]))
    with pytest.raises(SftrlError, match=rf"{path.name}, line {len(lines) + 1}: key '{key}'"):
        load_run(run_dir)


def test_a_number_beyond_all_floats_is_left_out_of_training_metrics(run_dir):
    append(run_dir / "stages/rl-s0/metrics.jsonl", f'{{"step": 99, "data": {{"a": 1{"0" * 400}, "b": 1}}}}\n')
    assert load_run(run_dir).training["rl-s0"][-1] == (99, {"b": 1.0})


def test_an_infinite_number_of_the_hardware_is_named(run_dir):
    state = json.loads((run_dir / "state.json").read_text())
    state["hardware"]["memory_gb"] = float("inf")
    (run_dir / "state.json").write_text(json.dumps(state))
    with pytest.raises(SftrlError, match=r"state\.json: key 'hardware\.memory_gb"):
        load_run(run_dir)
