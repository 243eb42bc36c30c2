from pathlib import Path

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.trackers import TRACKERS, require_packages
from sftrl_ext.experiments.runner import start_run
from tests.experiments.recipe.composing import config_of


def trained(tmp_path, *overrides):
    stages = make_plan(load_recipe("fig6_gp_l", "smoke", overrides), tmp_path)
    return [stage for stage in stages if stage.kind in ("sft", "rl")]


def test_console_and_file_are_the_default(tmp_path):
    pytest.importorskip("verl")
    for stage in trained(tmp_path):
        assert not any(word.startswith("trainer.logger") for word in stage.command)
    assert config_of(trained(tmp_path)[0].command).trainer.logger == ["console", "file"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_comes_beside_them_and_verl_knows_it(name, tmp_path):
    tracking = pytest.importorskip("verl.utils.tracking")
    assert name in tracking.Tracking.supported_backend
    for stage in trained(tmp_path, f"trackers=[{name}]")[-2:]:
        assert config_of(stage.command).trainer.logger == ["console", "file", name]


def test_what_trackers_write_goes_into_the_stage_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_DIR", raising=False)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for stage in trained(tmp_path, "trackers=[tensorboard,wandb]"):
        folder = tmp_path / "stages" / stage.name
        assert stage.env["TENSORBOARD_DIR"] == str(folder / "tensorboard")
        assert stage.env["WANDB_DIR"] == str(folder)
        assert stage.env["WANDB_RUN_GROUP"] == "fig6_gp_l-smoke"
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    assert "WANDB_DIR" not in trained(tmp_path, "trackers=[wandb]")[0].env


def test_curves_of_every_split_while_rl_trains(tmp_path):
    pytest.importorskip("verl")
    (stage,) = [s for s in trained(tmp_path, "budget.rl.validate_every=2") if s.kind == "rl"]
    config = config_of(stage.command)
    assert config.trainer.test_freq == 2
    splits = ("id", "id_unseen", "rule_ood", "rule_ood_unseen")
    assert config.data.val_files == [str(tmp_path / f"data/eval-{split}.parquet") for split in splits]


def test_the_command_line_has_one_option(tmp_path, capsys):
    words = ["plan", "fig6_gp_l", "--scale", "smoke", "--tracker", "tensorboard", "--tracker", "wandb"]
    assert main([*words, "--run-dir", str(tmp_path)]) == 0
    assert "trainer.logger=[console,file,tensorboard,wandb]" in capsys.readouterr().out
    assert main(["plan", "fig6_gp_l", "--tracker", "tensorbord"]) == 2
    assert "Did you mean 'tensorboard'" in " ".join(capsys.readouterr().err.split())


def test_a_tracker_that_is_not_installed_is_said_before_anything_runs(tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "mlflow" else found(n, *a))
    with pytest.raises(SftrlError, match="mlflow"):
        require_packages(["mlflow"])
    pytest.importorskip("verl")
    run_dir = Path(tmp_path / "run")
    with pytest.raises(SftrlError, match="mlflow"):
        start_run(load_recipe("fig6_gp_l", "smoke", ["trackers=[mlflow]"]), run_dir, None)
    assert not run_dir.exists()
