"""A start chosen by measured success: planned before anything is measured, then noted, resumed and shared."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.stage_cache import stage_key
from sftrl_ext.experiments.start_models.start_choice import (
    CHOICE,
    MODEL,
    choose_start,
    chosen_models,
    link_model,
    lowest,
    note_choice,
)
from sftrl_ext.files import write_json, write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import EvalRecord
from sftrl_ext.runs.state import RunState, StageState
from sftrl_ext.runs.typed_json import from_json

SFT, CHOSEN = "sft-lr0.0002-s0", "lowest-rule_ood-of-sft-lr0.0002-s0"
WORDS = ["arms.rl.start='sft@lowest:rule_ood'"]


def small(tmp_path, name="fig6_gp_l", *words):
    recipe = load_recipe(name, "smoke", [*WORDS, *words])
    layout = RunLayout(tmp_path / "run")
    plan = {stage.name: stage for stage in make_plan(recipe, layout.root)}
    return recipe, layout, plan


def trained(layout, plan, steps=(2, 4)):
    """The run as it is when its SFT arm has ended."""
    checkpoints = layout.checkpoints(SFT)
    for step in steps:
        folder = checkpoints / f"global_step_{step}" / "huggingface"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"step": step}))
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(steps[-1]))
    stages = [StageState(s.name, s.kind, s.arm, s.seed, s.lr, s.start, key=s.name) for s in plan.values()]
    state = RunState("fig6_gp_l", "smoke", stages=stages)
    state.save(layout.state)
    write_json(layout.data / "unused.json", {})
    return state


def record(step, solved, split="rule_ood", stage=SFT, **more):
    counts = {"solved": solved, "episodes": 10}
    return {"stage": stage, "arm": "sft", "split": split, "step": step, **counts, **more}


def records(*lines):
    return [from_json(EvalRecord, line, "a test") for line in lines]


def put_records(layout, *records):
    write_text(layout.records, "".join(json.dumps(each) + "\n" for each in records))


def test_the_plan_is_whole_before_anything_is_measured(tmp_path):
    _, layout, plan = small(tmp_path)
    names = list(plan)
    assert names.index(SFT) + 1 == names.index(CHOSEN) == names.index("rl-lr0.0002-s0") - 1
    assert plan[CHOSEN].kind == "choice" and plan[CHOSEN].command[-1] == CHOSEN
    rl = plan["rl-lr0.0002-s0"]
    assert rl.start == f"{SFT}@lowest:rule_ood"
    assert f"actor_rollout_ref.model.path={layout.stage(CHOSEN) / MODEL}" in rl.command


def test_rates_share_a_choice_and_seeds_have_their_own(tmp_path):
    _, _, plan = small(tmp_path, "fig6_gp_l", "++arms.rl.lr_times=[1,2]", "sweep.seeds=[0,1]")
    assert [name for name, stage in plan.items() if stage.kind == "choice"] == [
        CHOSEN, "lowest-rule_ood-of-sft-lr0.0002-s1",
    ]  # fmt: skip


@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu", "node", "cluster"])
def test_figure_19_starts_by_measured_success_at_every_scale(scale, tmp_path):
    recipe = load_recipe("fig19_overfit_init", scale)
    plan = make_plan(recipe, tmp_path)
    assert recipe.arms["rl_after"].start == "sft@lowest:rule_ood"
    assert sum(stage.kind == "choice" for stage in plan) == 1


def test_another_split_or_selector_is_refused():
    with pytest.raises(SftrlError, match="arms.rl.start: unknown evaluated split 'rule_odd'"):
        load_recipe("fig6_gp_l", "smoke", ["arms.rl.start='sft@lowest:rule_odd'"])
    with pytest.raises(SftrlError, match="sft@lowest:rule_ood"):
        load_recipe("fig6_gp_l", "smoke", ["arms.rl.start='sft@highest:id'"])


def test_the_lowest_is_per_step_on_routes_and_the_earliest_of_several():
    cards = lowest(records(record(4, 1), record(2, 1), record(6, 5)))
    assert (cards["step"], cards["measure"], cards["percent"]) == (2, "success", 10.0)
    assert cards["candidates"] == [[2, 10.0], [4, 10.0], [6, 50.0]]
    routes = lowest(
        records(record(2, 0, responses=30, correct_actions=20), record(4, 3, responses=50, correct_actions=9))
    )
    assert (routes["step"], routes["measure"], routes["percent"]) == (4, "per_step", 18.0)
    with pytest.raises(SftrlError, match="none can be chosen"):
        lowest([])


def test_a_choice_evaluates_its_candidates_and_is_noted(tmp_path, monkeypatch):
    recipe, layout, plan = small(tmp_path)
    state = trained(layout, plan)
    asked = []

    def measured(recipe, state, layout, sets):
        asked.append(([stage.name for stage in state.stages], sets))
        put_records(layout, record(2, 7), record(4, 3), record(2, 0, "id"), record(9, 0, stage="init"))

    monkeypatch.setattr("sftrl_ext.experiments.evaluation.checkpoints.evaluate_checkpoints", measured)
    monkeypatch.setattr("sftrl_ext.experiments.evaluation.targets.eval_set_of", lambda _, __, split: split)
    choose_start(recipe, layout, CHOSEN)
    choose_start(recipe, layout, CHOSEN)  # as after a kill
    assert asked[0] == ([SFT], ["rule_ood"])
    assert json.loads((layout.stage(CHOSEN) / MODEL / "config.json").read_text()) == {"step": 4}
    assert "30 %" in note_choice(state, layout, CHOSEN)
    assert state.stage("rl-lr0.0002-s0").start == f"{SFT}@4"
    moved = layout.root.rename(tmp_path / "moved")
    assert json.loads((moved / "stages" / CHOSEN / MODEL / "config.json").read_text()) == {"step": 4}
    with pytest.raises(SftrlError, match="no arm starts by the choice 'other'"):
        choose_start(recipe, layout, "other")


def test_a_stage_from_a_choice_has_the_key_of_the_named_step(tmp_path):
    recipe, layout, plan = small(tmp_path)
    trained(layout, plan)
    keys = {"model": "m", SFT: "k"}
    assert stage_key(recipe, plan["rl-lr0.0002-s0"], layout, keys) is None  # not chosen yet
    link_model(layout.checkpoints(SFT) / "global_step_2" / "huggingface", layout.stage(CHOSEN) / MODEL)
    write_json(layout.stage(CHOSEN) / CHOICE, {"stage": SFT, "step": 2, "split": "rule_ood"})
    assert list(chosen_models(layout).values()) == [(SFT, "checkpoints/global_step_2/huggingface")]
    chosen = stage_key(recipe, plan["rl-lr0.0002-s0"], layout, keys)
    for step, same in ((2, True), (4, False)):
        named = load_recipe("fig6_gp_l", "smoke", [f"arms.rl.start=sft@{step}"])
        stage = next(s for s in make_plan(named, layout.root) if s.kind == "rl")
        assert (stage_key(named, stage, layout, keys) == chosen) is same
    assert stage_key(recipe, plan[CHOSEN], layout, keys) is None


def test_a_run_goes_on_from_the_choice_when_resumed(tmp_path, monkeypatch):
    """The runner notes the choice before the stage after it starts, and once only."""
    recipe, layout, plan = small(tmp_path)
    trained(layout, plan)
    state = RunState.load(layout.state)
    for stage in state.stages[: list(plan).index(CHOSEN)]:
        stage.status = "done"
    state.save(layout.state)
    put_records(layout, record(2, 1), record(4, 3))
    ran = []

    def child(command, *, env, log, record, on_poll, own_temp):
        ran.append(command[-1])
        if "choice" in command:
            choose_start(recipe, layout, CHOSEN)
            return type("Done", (), {"code": 0, "wall_s": 1.0, "peak_rss_mb": 1.0})()
        raise KeyboardInterrupt

    monkeypatch.setattr("sftrl_ext.experiments.evaluation.checkpoints.evaluate_checkpoints", lambda *_: None)
    monkeypatch.setattr("sftrl_ext.experiments.evaluation.targets.eval_set_of", lambda *_: None)
    monkeypatch.setattr(runner, "run_child", child)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.Runner(recipe, layout, Console(quiet=True)).run()
    assert ran.count(CHOSEN) == 1 and len(ran) == 3
    assert RunState.load(layout.state).stage("rl-lr0.0002-s0").start == f"{SFT}@2"
