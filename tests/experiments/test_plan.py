import shlex
import subprocess
import sys

import pytest

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe import SCALES, load_recipe


def test_both_arms_start_from_the_same_init(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke", ["sweep.seeds=[0,1]"])
    stages = make_plan(recipe, tmp_path)
    arms = [stage for stage in stages if stage.arm in ("sft", "rl")]
    assert [stage.seed for stage in arms] == [0, 0, 1, 1]
    starts = {arg.partition("=")[2] for stage in arms for arg in stage.command if "model.path=" in arg}
    assert starts == {str(tmp_path / "stages/init/checkpoints/global_step_4/huggingface")}
    assert len({stage.name for stage in stages}) == len(stages)


def test_every_learning_rate_of_a_sweep_is_a_stage(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke", ["sweep.sft_lrs=[1e-4,3e-4]", "sweep.rl_lrs=[5e-5]"])
    names = [stage.name for stage in make_plan(recipe, tmp_path)]
    assert {"sft-lr0.0001-s0", "sft-lr0.0003-s0", "rl-lr5e-05-s0"} <= set(names)


@pytest.mark.parametrize("scale", SCALES)
def test_the_printed_commands_are_words_of_a_shell(scale, tmp_path):
    for stage in make_plan(load_recipe("fig6_gp_l", scale), tmp_path):
        assert tuple(shlex.split(shlex.join(stage.command))) == stage.command
        assert stage.command[0] == sys.executable


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_verl_takes_every_key_of_the_training_commands(scale, kind, tmp_path):
    pytest.importorskip("verl")
    stage = next(s for s in make_plan(load_recipe("fig6_gp_l", scale), tmp_path) if s.kind == kind)
    module = stage.command.index("verl.trainer.sft_trainer" if kind == "sft" else "verl.trainer.main_ppo")
    command = [sys.executable, "-m", *stage.command[module:], "--cfg", "job", "--resolve"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**_environ(), **stage.env})
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert f"experiment_name: {stage.name}" in shown.stdout


def _environ():
    import os

    return dict(os.environ)
