"""Changes of a run that has begun: keys of later stages, and stages that are done again."""

import shlex

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
from sftrl_ext.experiments.changes import change_run
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, load_recipe, to_yaml
from sftrl_ext.experiments.stage_order import dependents
from sftrl_ext.files import read_json, write_json, write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import EvalRecord, append_record, read_eval_records
from sftrl_ext.runs.state import RunState, StageState

SFT, RL = "sft-lr0.0002-s0", "rl-lr0.0002-s0"


@pytest.fixture
def layout(tmp_path):
    """A run in which the SFT arm is done, and RL has failed."""
    return begun_run(tmp_path / "run", done_before=RL)


def begun_run(root, done_before, name="fig6_gp_l"):
    recipe, layout = load_recipe(name, "smoke"), RunLayout(root)
    write_text(layout.recipe, to_yaml(recipe))
    stages = [StageState(s.name, s.kind, s.arm, s.seed, s.lr, s.start) for s in make_plan(recipe, root)]
    names = [stage.name for stage in stages]
    for stage in stages[: names.index(done_before)]:
        stage.status, stage.launches = "done", 1
        write_text(layout.log(stage.name), stage.name)
    failed = stages[names.index(done_before)]
    failed.status, failed.launches = "failed", 1
    write_text(layout.log(failed.name), failed.name)
    RunState(recipe.name, "smoke", stages=stages).save(layout.state)
    write_text(layout.rows("base"), "rows")
    write_text(layout.start_model / "size.json", "{}")
    return layout


def change(layout, *overrides, again=None):
    lines = []
    change_run(layout, overrides, again, lines.append)
    return lines


def statuses(layout):
    return {stage.name: stage.status for stage in RunState.load(layout.state).stages}


def test_a_key_of_a_later_stage_is_kept_with_the_time(layout):
    assert change(layout, "budget.eval.temperature=0.5") == []
    assert from_yaml(layout.recipe).budget.eval.temperature == 0.5
    assert from_yaml(layout.begun_recipe).budget.eval.temperature != 0.5
    [made] = RunState.load(layout.state).changes
    assert made.overrides == ("budget.eval.temperature=0.5",) and made.time.endswith("Z")
    assert statuses(layout)[RL] == "failed"


@pytest.mark.parametrize(
    ("word", "stage"),
    [
        ("budget.sft.batch_size=4", SFT),
        ("budget.base.steps=3", "base"),
        ("budget.init.rows=96", "data"),
        ("task.max_attempts=3", "data"),
        ("budget.eval.hands=5", "data"),
        ("model.hidden_size=64", "model"),
        ("budget.rl.minibatches=1", RL),
        ("sweep.seeds=[0,1]", "data"),
    ],
)
def test_a_key_of_a_stage_that_has_begun_is_refused(layout, word, stage):
    before = layout.state.read_text(), layout.recipe.read_text()
    with pytest.raises(SftrlError) as refusal:
        change(layout, word)
    message = str(refusal.value)
    assert f"{shlex.quote(word)}: concerns {stage}" in message
    assert (
        f"{shlex.quote(word)} --from {stage}`" in message
        and "expected keys of stages not yet begun (" in message
    )
    assert (layout.state.read_text(), layout.recipe.read_text()) == before


def test_an_unknown_key_has_the_nearest_name(layout):
    with pytest.raises(SftrlError, match="'temperatur'.*Did you mean 'temperature'"):
        change(layout, "budget.eval.temperatur=0.5")


def test_what_depends_on_a_stage_follows_its_checkpoints(tmp_path):
    recipe, layout = load_recipe("fig6_gp_l", "smoke"), RunLayout(tmp_path)
    every = {stage.name for stage in make_plan(recipe, tmp_path)}
    assert dependents(recipe, layout, "data") == every
    assert dependents(recipe, layout, "model") == every - {"data"}
    assert dependents(recipe, layout, "init") == {"init", SFT, RL, "eval", "report"}
    assert dependents(recipe, layout, SFT) == {SFT, "eval", "report"}
    assert dependents(recipe, layout, "eval") == {"eval", "report"}
    assert dependents(recipe, layout, "report") == {"report"}
    with pytest.raises(SftrlError, match="Did you mean 'report'"):
        dependents(recipe, layout, "reports")


def test_a_choice_and_what_starts_from_it_depend_on_its_candidates(tmp_path):
    recipe, layout = load_recipe("fig19_overfit_init", "smoke"), RunLayout(tmp_path)
    plan = make_plan(recipe, tmp_path)
    choice = next(stage for stage in plan if stage.kind == "choice")
    candidates = choice.name.partition("-of-")[2]
    from_choice = {stage.name for stage in plan if "@lowest:" in (stage.start or "")}
    assert from_choice and from_choice | {choice.name} <= dependents(recipe, layout, candidates)
    assert from_choice <= dependents(recipe, layout, choice.name)
    assert candidates not in dependents(recipe, layout, choice.name)


def evaluated(layout, *stages):
    for stage in stages:
        append_record(layout, EvalRecord(stage=stage, arm="a", step=1, split="id", episodes=2, solved=1))
        write_json(layout.played(f"{stage}@1"), [])


def test_stages_are_done_again_and_nothing_is_deleted(layout):
    evaluated(layout, "init", RL)
    [line] = change(layout, "budget.rl.minibatches=1", again=RL)
    [made] = RunState.load(layout.state).changes
    kept = RunLayout(layout.root / made.replaced)
    assert line.startswith(f"again: {RL}, eval, report; what they had made: ") and str(kept.root) in line
    assert kept.log(RL).read_text() == RL and not layout.stage(RL).exists()
    assert layout.log(SFT).read_text() == SFT
    assert {record.stage for record in read_eval_records(layout).values()} == {"init"}
    assert {record.stage for record in read_eval_records(kept).values()} == {"init", RL}
    assert layout.played("init@1").exists() and not layout.played(f"{RL}@1").exists()
    again = {stage.name for stage in RunState.load(layout.state).stages if stage.again}
    assert again == {RL, "eval", "report"} and statuses(layout)[RL] == "waiting"
    assert statuses(layout)[SFT] == "done"


def test_another_rate_makes_a_stage_of_another_name(layout):
    change(layout, "budget.rl.lr=1e-5", again=RL)
    names = list(statuses(layout))
    assert RL not in names and names[-3:] == ["rl-lr1e-05-s0", "eval", "report"]


def test_all_records_go_where_the_evaluation_itself_is_done_again(layout):
    evaluated(layout, "init")
    change(layout, again="eval")
    assert read_eval_records(layout) == {}


def test_rows_and_the_start_model_are_moved_with_their_stages(layout):
    change(layout, again="data")
    [made] = RunState.load(layout.state).changes
    kept = RunLayout(layout.root / made.replaced)
    assert kept.rows("base").exists() and (kept.start_model / "size.json").exists()
    assert not layout.data.exists() and not layout.start_model.exists()
    assert set(statuses(layout).values()) == {"waiting"}


def test_a_job_that_is_queued_again_goes_on_with_the_changed_recipe(layout, monkeypatch):
    change(layout, "budget.eval.temperature=0.5")
    resumed = []
    monkeypatch.setattr(runner, "resume_run", lambda run_dir, *_, **__: resumed.append(run_dir))
    runner.start_or_resume(load_recipe("fig6_gp_l", "smoke"), layout.root, None)
    assert resumed == [layout.root]
    with pytest.raises(SftrlError, match="another recipe"):
        changed = load_recipe("fig6_gp_l", "smoke", ["budget.eval.temperature=0.5"])
        runner.start_or_resume(changed, layout.root, None)


def test_the_state_file_of_an_older_run_has_no_changes(layout):
    content = read_json(layout.state)
    content.pop("changes")
    write_json(layout.state, content)
    assert RunState.load(layout.state).changes == []
