"""The folder for verl's recipe repository: its commands compose, and its rows fit the trainer of each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("verl")

from hydra import compose, initialize_config_dir

from sftrl_ext.files import import_file
from sftrl_ext.paths import configs_dir
from sftrl_ext.verl_version import VERL_VERSION
from tests.experiments.recipe.composing import DEAD, config_of

RECIPE = Path(__file__).parents[2] / "examples" / "verl_recipe"


def command(script, tmp_path):
    """Arguments of the last program that a script starts."""
    shim = tmp_path / "python"
    shim.write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$CALLED"\n')
    shim.chmod(0o755)
    called = tmp_path / "called"
    variables = {"PYTHON": str(shim), "CALLED": str(called), "MODEL": "m", "CONFIGS": str(configs_dir())}
    script_command = ["bash", RECIPE / script, "trainer.total_epochs=2"]
    subprocess.run(script_command, env={**os.environ, **variables}, check=True)
    words = called.read_text().split("\0")[:-1]
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    return words


def test_the_stock_trainer_takes_our_rows_and_our_reward(tmp_path):
    overrides = command("run_stock.sh", tmp_path)[2:]
    (folder,) = importlib.util.find_spec("verl").submodule_search_locations
    with initialize_config_dir(str(Path(folder) / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer", overrides)
    assert not {override.split(".")[0] for override in overrides} & set(DEAD)
    assert config.reward.custom_reward_function.path == "pkg://sftrl_ext.reward_fns"
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == "single_turn_agent"
    assert [Path(file).stem for file in config.data.val_files] == ["id_unseen", "rule_ood"]
    assert config.trainer.total_epochs == 2  # an override of the caller's


def test_the_trainer_with_turns_composes(tmp_path):
    config = config_of(command("run_turns.sh", tmp_path)[:-1])
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == "verifier"
    assert (config.sftrl.credit.estimator, config.actor_rollout_ref.model.path) == ("rloo", "m")


@pytest.mark.parametrize("stock", [False, True])
def test_the_rows_choose_the_agent_loop(tmp_path, monkeypatch, stock):
    words = ["prepare_rows.py", str(tmp_path), "--rows", "8", *(["--stock"] if stock else [])]
    monkeypatch.setattr(sys, "argv", words)
    import_file(RECIPE / "prepare_rows.py", "rows of the recipe").main()
    names = {path.stem: pq.read_table(path).column_names for path in tmp_path.glob("*.parquet")}
    assert names.keys() == {"train", "id_unseen", "rule_ood"}
    assert all(("agent_name" in columns) is not stock for columns in names.values())


def test_the_required_release_is_ours():
    lines = dict(line.split("=", 1) for line in (RECIPE / "REQUIRED_VERL.txt").read_text().splitlines()[1:])
    assert lines["TAG"] == f"v{VERL_VERSION}" and lines["PIP_INSTALL"] == f"pip install verl=={VERL_VERSION}"
