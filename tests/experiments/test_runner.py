import errno
import fcntl

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
from sftrl_ext.experiments.recipe.recipe_files import load_recipe, to_yaml
from sftrl_ext.files import write_json, write_text
from sftrl_ext.runs.layout import RunLayout


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
    monkeypatch.setattr(runner, "resume_run", lambda run_dir, console: went_on.append(run_dir))
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
