"""The real pipeline from a folder of a vision model, with a critic: data, init, SFT, RL, evaluation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

HANDS = 6


def sftrl(*words: str) -> str:
    """Run the command line; what it wrote."""
    command = [sys.executable, "-m", "sftrl_ext.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.backends.tiny_families import BUILDERS

    folder = tmp_path_factory.mktemp("model") / "qwen2_5_vl"
    BUILDERS["qwen2_5_vl"](folder)
    return folder


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("folder") / "run"
    algorithm = ["budget.rl.algorithm=ppo_turn", "budget.rl.group=1", "budget.rl.rows=64"]
    words = ["--scale", "smoke", "--model", str(model), "--run-dir", str(run_dir), *algorithm]
    words += [f"budget.eval.hands={HANDS}"]
    sftrl("run", "fig6_gp_vl", *words)
    return RunLayout(run_dir)


def test_every_stage_is_done_and_none_trains_a_model_of_our_own(run):
    stages = read_json(run.state)["stages"]
    assert all(stage["status"] == "done" for stage in stages)
    assert [stage["kind"] for stage in stages] == ["data", "model", "sft", "sft", "rl", "eval", "report"]
    assert (run.report / "report.html").stat().st_size > 500


def test_the_run_has_no_copy_of_the_weights(run, model):
    name = "model.safetensors"
    assert (run.start_model / name).stat().st_ino == (model / name).stat().st_ino


def test_the_critic_lacks_its_head_alone(run):
    log = run.log("rl-lr0.0002-s0").read_text()
    assert "Qwen2_5_VLForTokenClassification LOAD REPORT" in log
    report = log.partition("ForTokenClassification LOAD REPORT")[2].partition("Notes:")[0]
    missing = {line.split("|")[0].split()[-1] for line in report.splitlines() if "MISSING" in line}
    assert missing == {"score.weight", "score.bias"}


def test_every_checkpoint_is_evaluated_on_every_split(run):
    records = list(read_jsonl(run.records))
    assert {record["stage"] for record in records} == {"init", "sft-lr0.0002-s0", "rl-lr0.0002-s0"}
    assert {record["split"] for record in records} == {"id", "rule_ood", "visual_ood"}
    for record in records:
        assert record["episodes"] == HANDS and record["errors"] == 0
        assert 0 <= record["recognized_first"] <= HANDS


def test_the_folder_alone_is_evaluated(run, model):
    assert "id" in sftrl("eval", str(model), "--data", str(run.eval_rows("id")), "--max-turn-tokens", "16")
