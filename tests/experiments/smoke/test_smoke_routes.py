"""The real pipeline on routes at scale smoke, in words and in street views: episodes of several prompts."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from data_prep.validate import validate_file
from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def smoke(recipe, run_dir):
    command = [sys.executable, "-m", "sftrl_ext.cli", "run", recipe, "--scale", "smoke"]
    done = subprocess.run([*command, "--run-dir", str(run_dir)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    layout = RunLayout(run_dir)
    assert all(stage["status"] == "done" for stage in read_json(layout.state)["stages"])
    return layout


KINDS = ["words", pytest.param("views", marks=pytest.mark.nightly)]
"""Cards as images stand for views in the usual run."""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return smoke("fig6_virl_l", tmp_path_factory.mktemp("words") / "run")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return smoke("fig7_virl_vl", tmp_path_factory.mktemp("views") / "run")


def rl_steps(layout):
    return [entry["data"] for entry in read_jsonl(layout.metrics("rl-lr0.0002-s0"))]


def test_episodes_of_several_prompts_are_trained_on(words):
    steps = rl_steps(words)
    assert len(steps) == 2
    assert steps[0]["training/rollout_probs_diff_max"] < 1e-4
    for data in steps:
        assert data["episode/episode_error"] == 0
        # More responses right than episodes solved: points were passed, and their prompts built anew.
        assert data["episode/points_solved"] > data["episode/solved"]
        assert data["turns/mean"] > 1
        assert data["episode/points_solved"] <= data["episode/points"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_checkpoint_walks_every_split(kind, request):
    layout = request.getfixturevalue(kind)
    splits = {
        "words": {"id", "id_unseen", "rule_ood", "rule_ood_unseen"},
        "views": {"id", "rule_ood", "visual_ood"},
    }
    records = list(read_jsonl(layout.records))
    assert {record["split"] for record in records} == splits[kind]
    arms = {(record["arm"], record["step"]) for record in records}
    assert len(records) == len(arms) * len(splits[kind]) and {arm for arm, _ in arms} == {
        "base",
        "init",
        "sft",
        "rl",
    }
    for record in records:
        assert record["errors"] == 0
        assert 0 <= record["correct_actions"] <= record["responses"]
        assert record["responses"] >= record["episodes"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_the_run_are_valid_and_no_walk_of_training_is_held_out(kind, request):
    layout = request.getfixturevalue(kind)
    for file in sorted(layout.data.glob("*.parquet")):
        assert validate_file(file, limit=60).rows > 0
    if kind == "views":
        assert "images" not in pq.read_schema(layout.rows("base")).names


@pytest.mark.nightly
def test_pictures_reach_the_trainer_as_the_rollout_saw_them(views):
    first, last = rl_steps(views)
    assert first["episode/episode_error"] == last["episode/episode_error"] == 0
    assert first["training/rollout_probs_diff_max"] < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_shows_steps_and_whole_routes(kind, request):
    report = request.getfixturevalue(kind).report
    text = (report / "report.md").read_text()
    assert "per-step" in text.lower() or "per step" in text.lower()
    for name in ("report.html", "bars.png", "success_vs_compute.png"):
        assert (report / name).stat().st_size > 500
