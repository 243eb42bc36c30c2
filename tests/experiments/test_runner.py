import errno
import fcntl
import io

import pytest
from rich.console import Console

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
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

    def run(stages):
        started = runner.Runner(recipe, layout, Console(quiet=True))
        monkeypatch.setattr(started, "_run_stage", finish)
        started.run(stages)
        started._save()

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
