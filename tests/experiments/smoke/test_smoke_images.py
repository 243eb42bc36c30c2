"""The real pipeline with images at scale smoke: a vision-language model trained by SFT and RL, and read."""

import subprocess
import sys

import pytest

from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("images") / "run"
    command = [sys.executable, "-m", "sftrl_ext.cli", "run", "fig7_gp_vl", "--scale", "smoke"]
    # The arms leave the vision encoder as it is, so that freezing runs for real as well.
    command += ["model.freeze=vision", "--run-dir", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return RunLayout(run_dir)


def test_every_stage_is_done(smoke):
    state = read_json(smoke.state)
    assert all(stage["status"] == "done" for stage in state["stages"])
    for name in ("report.html", "bars.png", "recognition_vs_success.png", "recognition_vs_compute.svg"):
        assert (smoke.report / name).stat().st_size > 500


def test_rollout_and_trainer_agree(smoke):
    steps = {entry["step"]: entry["data"] for entry in read_jsonl(smoke.metrics("rl-lr0.0002-s0"))}
    assert set(steps) == {1, 2}
    # The engine never samples a placeholder, which so young a model still gives some probability.
    assert steps[1]["training/rollout_probs_diff_max"] < 2e-3
    for data in steps.values():
        assert data["episode/episode_error"] == 0
        assert 0 <= data["episode/recognized"] <= 1


def test_every_checkpoint_is_read_on_every_split(smoke):
    records = list(read_jsonl(smoke.records))
    assert {record["split"] for record in records} == {"id", "rule_ood", "visual_ood"}
    assert len(records) == 3 * 6
    for record in records:
        assert record["data_source"] == f"gp_vl/{record['split']}"
        assert record["episodes"] == 24 and record["errors"] == 0
        assert 0 <= record["recognized_first"] <= 24 and 0 <= record["number_right_first"] <= 24


def test_the_arms_leave_the_encoder_as_the_init_left_it(smoke):
    from safetensors.torch import load_file

    state = read_json(smoke.state)
    weights = {}
    for stage in state["stages"]:
        if stage["name"] in ("base", "init") or stage.get("arm") in ("sft", "rl"):
            folders = sorted(smoke.checkpoints(stage["name"]).glob("global_step_*/**/huggingface"))
            weights[stage["name"]] = load_file(folders[-1] / "model.safetensors")
    init = weights.pop("init")
    encoder = [name for name in init if "visual." in name and "visual.merger." not in name]
    adapter = [name for name in init if "visual.merger." in name]
    assert encoder and adapter

    def moved(other, names):
        return any(not other[name].equal(init[name]) for name in names)

    assert moved(weights.pop("base"), encoder)
    assert len(weights) == 2
    for arm in weights.values():
        assert not moved(arm, encoder) and moved(arm, adapter)
