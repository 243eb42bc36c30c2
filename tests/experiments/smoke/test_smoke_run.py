"""The real pipeline at scale smoke: data, pre-training, SFT, PPO on verl, evaluation, report; and a kill."""

import shutil
import subprocess

import pytest

from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout
from tests.experiments.smoke.smoke_runs import (
    RL,
    SFT,
    SFTRL,
    assert_same_rl,
    assert_same_sft,
    kill,
    resume,
    sftrl,
    wait_until,
    with_stage_undone,
)

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    output = sftrl("run", "fig6_gp_l", "--scale", "smoke", "--run-dir", run_dir)
    return RunLayout(run_dir), output


def test_every_stage_is_done_and_the_report_is_named(smoke):
    layout, output = smoke
    state = read_json(layout.state)
    kinds = [s["kind"] for s in state["stages"]]
    assert kinds == ["data", "model", *["sft"] * 4, "rl", "eval", "report"]
    assert all(s["status"] == "done" and s["wall_s"] > 0 for s in state["stages"])
    assert str(layout.report / "report.html") in output
    for name in (
        "report.md",
        "report.html",
        "bars.png",
        "bars.svg",
        "ood_vs_id.png",
        "success_vs_compute.png",
    ):
        assert (layout.report / name).stat().st_size > 500


def test_rollout_and_trainer_agree_at_the_update_that_is_checked(smoke):
    layout, _ = smoke
    steps = {e["step"]: e["data"] for e in read_jsonl(layout.metrics("rl-lr0.0002-s0"))}
    assert set(steps) == {1, 2}
    assert steps[1]["training/rollout_probs_diff_valid"] == 1
    assert steps[1]["training/rollout_probs_diff_max"] < 1e-4
    assert steps[1]["policy/kl_start_k3"] < 1e-6
    assert not [name for name in steps[2] if name.startswith(("training/rollout_probs_diff", "policy/"))]


def test_the_tracker_has_episodes_turns_and_tokens(smoke):
    layout, _ = smoke
    data = next(iter(read_jsonl(layout.metrics("rl-lr0.0002-s0"))))["data"]
    assert data["episode/episode_error"] == 0
    assert 1 <= data["turns/mean"] <= 5
    shares = [value for key, value in data.items() if key.startswith("episode/outcome/")]
    assert sum(shares) == pytest.approx(1)
    assert data["tokens/step_trained"] > data["tokens/step_generated"] > 0


def test_every_checkpoint_is_evaluated_on_every_split(smoke):
    layout, _ = smoke
    records = list(read_jsonl(layout.records))
    splits = {"id", "id_unseen", "rule_ood", "rule_ood_unseen"}
    seen = {(r["arm"], r["step"]) for r in records}
    assert seen == {("base", 4), ("init", 4), ("sft", 2), ("sft", 4), ("rl", 1), ("rl", 2)}
    assert len(records) == len(seen) * len(splits)
    assert all(r["episodes"] == 24 and r["errors"] == 0 for r in records)
    assert {r["split"] for r in records} == splits


def test_every_checkpoint_has_its_divergence_from_its_start(smoke):
    layout, _ = smoke
    found = {(r["arm"], r["step"]): r["divergence"] for r in read_jsonl(layout.records) if "divergence" in r}
    assert {key: one["start"] for key, one in found.items()} == {
        ("init", 4): "dialogues@4",
        **{(arm, step): "init@4" for arm, step in (("sft", 2), ("sft", 4), ("rl", 1), ("rl", 2))},
    }
    for one in found.values():
        assert 0 < one["forward"]["nats"] < 10 and 0 < one["reverse"]["nats"] < 10
        assert one["forward"]["episodes"] == one["reverse"]["episodes"] == 24
    assert found["sft", 2]["forward"]["nats"] < found["sft", 4]["forward"]["nats"]
    assert (layout.report / "forgetting_vs_divergence.png").stat().st_size > 500


def test_only_the_newest_step_keeps_its_training_state(smoke):
    layout, _ = smoke
    for stage, last in (("sft-lr0.0002-s0", 4), ("rl-lr0.0002-s0", 2)):
        shards = {
            int(path.relative_to(layout.checkpoints(stage)).parts[0].rpartition("_")[2])
            for path in layout.checkpoints(stage).rglob("optim_world_size_*.pt")
        }
        assert shards == {last}


def test_a_report_regenerates_from_the_metrics_alone(smoke, tmp_path):
    layout, _ = smoke
    copy = tmp_path / "copy"
    shutil.copytree(
        layout.root, copy, ignore=shutil.ignore_patterns("checkpoints", "data", "start_model", "report")
    )
    sftrl("report", copy)
    assert (copy / "report" / "bars.svg").read_bytes() == (layout.report / "bars.svg").read_bytes()


def test_a_second_run_in_the_same_folder_is_refused(smoke):
    layout, _ = smoke
    again = subprocess.run(
        [*SFTRL, "run", "fig6_gp_l", "--scale", "smoke", "--run-dir", str(layout.root)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 2
    assert "sftrl resume" in again.stderr


def run_again_and_kill(whole, run_dir, arm):
    """Run one arm of a finished run again in a copy, and kill it and its runner after a first checkpoint."""
    layout = with_stage_undone(whole, run_dir, arm)
    runner = resume(layout, stdout=subprocess.DEVNULL)
    wait_until((layout.checkpoints(arm) / "latest_checkpointed_iteration.txt").exists, runner)
    kill(runner, layout, arm)
    return layout


def test_sft_killed_in_training_ends_in_the_same_state(smoke, tmp_path):
    whole, _ = smoke
    layout = run_again_and_kill(whole, tmp_path / "run", SFT)
    sftrl("resume", layout.root)
    assert len(list(read_jsonl(whole.metrics(SFT)))) == 4
    assert_same_sft(whole, layout)


@pytest.mark.nightly
def test_ppo_killed_in_training_ends_in_the_same_state(smoke, tmp_path):
    whole, _ = smoke
    layout = run_again_and_kill(whole, tmp_path / "run", RL)
    sftrl("resume", layout.root)
    assert_same_rl(whole, layout)
