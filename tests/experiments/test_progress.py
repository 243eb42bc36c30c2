"""Progress of a run: time left, the lines of a pipe, and what a stage waits for."""

import io
import json

import pytest
from rich.console import Console

from sftrl_ext.experiments import progress as module
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.progress import (
    RunProgress,
    StageWatch,
    TimeLeft,
    awaited,
    planned_seconds,
    time_text,
)
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.runs.progress import ProgressFile, StageProgress, read_progress
from sftrl_ext.runs.state import RunState, StageState


@pytest.fixture
def clock(monkeypatch):
    times = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: times[0])
    return times


def test_a_stage_without_counts_has_what_is_left_of_its_plan():
    left = TimeLeft({"base": 100.0, "rl": 400.0})
    assert left.of_stage("base", 30.0, StageProgress()) == 70.0
    assert left.of_stage("base", 130.0, StageProgress()) == 0.0
    assert left.of_stage("elsewhere", 30.0, StageProgress()) is None
    assert left.of_stages(["base", "rl"]) == 500.0 and left.of_stages(["elsewhere"]) is None


def test_finished_stages_correct_the_plans_of_later_ones():
    left = TimeLeft({"base": 100.0, "rl": 400.0}, {"base": 150.0})
    assert left.of_stages(["rl"]) == 600.0
    assert left.of_stage("rl", 100.0, StageProgress(0, 48)) == 500.0
    assert left.of_stage("rl", 100.0, StageProgress(12, 48)) == 450.0  # one look: no rate yet


def test_counted_items_give_a_rate_that_leaves_the_start_out():
    left = TimeLeft({"rl": 1000.0})
    left.of_stage("rl", 60.0, StageProgress(10, 48))  # resumed at 10
    assert left.of_stage("rl", 80.0, StageProgress(12, 48)) == 360.0
    left.begin()
    assert left.of_stage("rl", 80.0, StageProgress(12, 48)) == 750.0


def test_times_are_coarse():
    assert [time_text(s) for s in (0, 38, 56, 540, 7500)] == ["5 s", "40 s", "1 min", "9 min", "2 h 05 min"]


def test_a_stage_of_training_names_what_it_waits_for():
    assert awaited("rl", ["python"]) == "torch and verl are imported"
    assert awaited("rl", ["python", "gcs_server", "raylet", "ray::IDLE"]) == "Ray starts"
    assert awaited("rl", ["python", "raylet", "ray::TaskRunner"]) == "Ray starts the workers"
    busy = ["python", "raylet", "ray::TaskRunner", "ray::WorkerDict", "ray::IDLE"]
    assert awaited("rl", busy) == "workers load the model for the first update"
    assert awaited("sft", ["python"]) == "torch and verl are imported"
    assert awaited("sft", ["python", "python"]) == "the model is loaded for the first step"


def test_a_run_without_a_terminal_shows_a_line_at_the_start_and_one_a_minute(tmp_path, clock):
    recipe = load_recipe("fig6_gp_l", "smoke")
    plan = make_plan(recipe, tmp_path)
    state = RunState(stages=[StageState(stage.name, stage.kind) for stage in plan])
    rl = next(stage for stage in plan if stage.kind == "rl")
    for entry in state.stages[: plan.index(rl)]:
        entry.status = "done"
    metrics, out = tmp_path / "metrics-1.jsonl", io.StringIO()
    watch = StageWatch(rl, metrics, tmp_path / "progress.json", lambda: ["python", "raylet"])
    shown = RunProgress(plan, state, {stage.name: 600.0 for stage in plan}, Console(file=out, width=200))
    with shown:
        shown.begin(rl, "[7/9] RL arm (rl)")
        for now, line in (
            (10, None),
            (61, None),
            (70, {"step": 1, "data": {"episode/solved": 0.5}}),
            (130, {"step": 2, "data": {"episode/solved": 0.714}}),
        ):
            clock[0] = now
            if line is not None:
                with metrics.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            shown.update(rl, watch.look())
        shown.end()
    total = rl.total
    left = time_text(60.0 * (total - 2))
    assert out.getvalue().splitlines() == [
        "[7/9] RL arm (rl) starts, 10 min left (run 30 min)",
        f"[7/9] RL arm (rl) 0/{total}, Ray starts, 9 min left (run 29 min)",
        f"[7/9] RL arm (rl) 2/{total}, solved 71 %, {left} left (run {time_text(60.0 * (total - 2) + 1200)})",
    ]


def test_a_terminal_has_a_bar_for_the_run_and_one_for_the_stage(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke")
    plan = make_plan(recipe, tmp_path)
    state = RunState(stages=[StageState(stage.name, stage.kind) for stage in plan])
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with RunProgress(plan, state, planned_seconds(recipe, plan), console) as shown:
        shown.begin(plan[0], "[1/9] build the parquet files (data)")
        shown.update(plan[0], StageProgress(3, 10, "files", "rl-s0: 64 rows"))
    text = out.getvalue()
    assert "0/9 stages" in text and "3/10 files" in text and "rl-s0: 64 rows" in text and "left" in text


def test_every_stage_has_planned_seconds_but_for_an_unlisted_model(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke")
    plan = make_plan(recipe, tmp_path)
    assert planned_seconds(recipe, plan).keys() == {stage.name for stage in plan}
    unlisted = load_recipe("fig6_gp_l", "gpu", ["model.path=someone/unlisted", "model.name=unlisted"])
    assert planned_seconds(unlisted, make_plan(unlisted, tmp_path)) == {}


def test_a_stage_counts_into_its_file(tmp_path):
    path = tmp_path / "progress.json"
    assert read_progress(path) == StageProgress()
    counted = ProgressFile(path)
    counted.count(3, "episodes", done=1)
    counted.show("init@2 on id")
    counted.advance()  # within a second of the last line: not yet in the file
    assert read_progress(path) == StageProgress(1, 3, "episodes", "init@2 on id")
    counted.advance()
    assert read_progress(path) == StageProgress(3, 3, "episodes", "init@2 on id")
    ProgressFile().advance()  # outside a run
