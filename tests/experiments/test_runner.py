import errno
import fcntl
import io

import pytest
from rich.console import Console

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
from sftrl_ext.experiments.changes import new_state
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe, to_yaml
from sftrl_ext.files import write_json, write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.run_folder import load_run
from sftrl_ext.runs.state import RunState
from tests.plugin_state import forgotten_plugins


def test_one_process_at_a_time_holds_a_run(tmp_path):
    layout = RunLayout(tmp_path)
    with (
        runner.run_lock(layout),
        pytest.raises(SftrlError, match="another process"),
        runner.run_lock(layout),
    ):
        pass


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with runner.run_lock(RunLayout(tmp_path)):
        pass
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"), runner.run_lock(RunLayout(tmp_path)):
        pass


def test_starting_again_goes_on_with_the_same_recipe_only(tmp_path, monkeypatch):
    went_on = []
    monkeypatch.setattr(runner, "resume_run", lambda run_dir, *_, **__: went_on.append(run_dir))
    monkeypatch.setattr(runner, "start_run", lambda *_: went_on.append("started"))
    recipe = load_recipe("fig6_gp_l", "smoke")
    runner.start_or_resume(recipe, tmp_path, None)
    assert went_on == ["started"]
    write_text(tmp_path / "recipe.yaml", to_yaml(recipe))
    write_json(tmp_path / "state.json", {})
    runner.start_or_resume(recipe, tmp_path, None)
    assert went_on == ["started", tmp_path]
    with pytest.raises(SftrlError, match="another recipe"):
        runner.start_or_resume(load_recipe("fig6_gp_l", "smoke", ["budget.rl.lr=1"]), tmp_path, None)


def test_a_plugin_that_has_changed_is_said_when_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "require_training", lambda: None)
    monkeypatch.setattr(runner.Runner, "_note_key", lambda *_: None)
    monkeypatch.setattr(runner.Runner, "_reuse", lambda *_: True)  # no stage runs
    plugin, run_dir, output = tmp_path / "mine.py", tmp_path / "run", io.StringIO()
    plugin.write_text("a = 1\n")
    console = Console(file=output, soft_wrap=True)
    with forgotten_plugins():
        runner.start_run(load_recipe("fig6_gp_l", "smoke", plugins=[str(plugin)]), run_dir, console)
        runner.resume_run(run_dir, console)
        assert "has changed" not in output.getvalue()
        plugin.write_text("a = 2\n")
        for _ in range(2):  # said once
            runner.resume_run(run_dir, console)
    plugin.unlink()
    with forgotten_plugins(), pytest.raises(SftrlError, match=rf"plug-in {plugin}: no such file"):
        runner.resume_run(run_dir, console)
    state = RunState.load(RunLayout(run_dir).state)
    assert list(state.plugins) == [str(plugin)]
    [change] = state.plugin_changes
    assert change.startswith(f"Plug-in {plugin} has changed (digest ") and "after 0 of " in change
    assert output.getvalue().count(change) == 1
    assert change in load_run(run_dir).notes


def test_an_interrupt_names_the_folder_of_the_run(tmp_path, monkeypatch):
    recipe, layout = load_recipe("fig6_gp_l", "smoke"), RunLayout(tmp_path / "runs" / "mine")
    RunState().save(layout.state)
    monkeypatch.chdir(tmp_path)

    def interrupted(command, *, on_poll, **_):
        on_poll()
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_child", interrupted)
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt, match="sftrl resume runs/mine`"):
        runner.Runner(recipe, layout, Console(file=out, width=200)).run()
    assert out.getvalue().startswith("[1/9] build the parquet files (data) starts")
    assert RunState.load(layout.state).stages[0].status == "running"


def test_some_stages_run_and_need_what_they_start_from(tmp_path, monkeypatch):
    recipe, layout = load_recipe("fig6_gp_l", "smoke"), RunLayout(tmp_path / "run")
    RunState().save(layout.state)
    ran = []

    def finish(stage, entry):
        ran.append(stage.name)
        entry.status = "done"
        started._save()

    def run(stages):
        nonlocal started
        started = runner.Runner(recipe, layout, Console(quiet=True))
        monkeypatch.setattr(started, "_run_stage", finish)
        started.run(stages)

    started = None

    with pytest.raises(SftrlError, match="--stages: base needs data, which is not done"):
        run("train")
    run("data,model")
    assert ran == ["data", "model"]
    with pytest.raises(SftrlError, match="eval needs base"):
        run("eval,report")
    run("train")
    assert ran[2:5] == ["base", "dialogues", "init"] and "eval" not in ran
    run("report,eval")
    assert ran[-2:] == ["eval", "report"]
    with pytest.raises(SftrlError, match="Did you mean 'report'"):
        run("reprot")


def parallel_run(tmp_path):
    """A run whose stages up to the arms are done, and a runner for each of two processes."""
    recipe, layout = load_recipe("fig6_gp_l", "smoke"), RunLayout(tmp_path / "run")
    state = RunState(stages=[new_state(stage) for stage in make_plan(recipe, layout.root)])
    for entry in state.stages:
        entry.status = (
            "done" if entry.kind not in ("eval", "report") and entry.arm not in ("sft", "rl") else "waiting"
        )
    state.save(layout.state)
    return layout, [runner.Runner(recipe, layout, Console(quiet=True)) for _ in range(2)]


def test_two_processes_run_two_stages_of_a_run(tmp_path, monkeypatch):
    """Neither forgets what the other has stored, whichever begins, and ends, first."""
    layout, (first, second) = parallel_run(tmp_path)
    arms = [entry.name for entry in first.state.stages if entry.arm in ("sft", "rl")]
    assert len(arms) == 2

    def inner(stage, entry):
        entry.status, entry.wall_s = "done", 7.0
        second._save()

    def outer(stage, entry):
        entry.status = "running"
        first._save()
        with runner.run_lock(layout, shared=True):
            second.run(arms[1])
        entry.status, entry.wall_s = "done", 5.0
        first._save()

    monkeypatch.setattr(second, "_run_stage", inner)
    monkeypatch.setattr(first, "_run_stage", outer)
    with runner.run_lock(layout, shared=True):
        first.run(arms[0])
    stored = RunState.load(layout.state)
    assert [(stored.stage(name).status, stored.stage(name).wall_s) for name in arms] == [
        ("done", 5.0),
        ("done", 7.0),
    ]
    assert {entry.status for entry in stored.stages if entry.kind in ("eval", "report")} == {"waiting"}
    # The first process knows of the other's stage, too.
    assert first.state.stage(arms[1]).status == "done"


def test_no_stage_is_run_twice_at_the_same_time(tmp_path, monkeypatch):
    layout, (first, second) = parallel_run(tmp_path)
    arm = next(entry.name for entry in first.state.stages if entry.arm == "rl")
    refusals = []

    def outer(stage, entry):
        with pytest.raises(SftrlError, match=f"another process is running stage '{arm}'") as caught:
            second.run("rl")
        refusals.append(str(caught.value))
        with pytest.raises(SftrlError, match="another process is running this run"), runner.run_lock(layout):
            pass
        entry.status = "done"
        first._save()

    monkeypatch.setattr(first, "_run_stage", outer)
    with runner.run_lock(layout, shared=True):
        first.run("rl")
    assert len(refusals) == 1
    # Afterwards there is nothing left to do for the other.
    monkeypatch.setattr(second, "_run_stage", lambda *_: pytest.fail("it ran again"))
    second.run("rl")
