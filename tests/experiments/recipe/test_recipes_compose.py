"""Every recipe at every scale: it plans, and verl takes every key of every command it would run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe, recipe_files
from sftrl_ext.experiments.recipe.schema import SCALES
from tests.experiments.recipe.composing import config_of

RECIPES = sorted({path.stem for path in recipe_files().values()})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder: verl reads the start model of a critic while it checks a config."""
    pytest.importorskip("transformers")
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny_llama(folder, ["24"], ModelConfig(name="t", hidden_size=32, layers=1, heads=1), seed=0)
    return folder


def check_rl(stage, recipe, model):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = config_of(stage.command)
    config.actor_rollout_ref.model.path = config.critic.model.path = str(model)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert need_critic(config) == (config.sftrl.credit.estimator == "gae")
    assert config.trainer.v1.trainer_mode == "sftrl_turn"
    assert config.trainer.experiment_name == stage.name
    assert config.trainer.total_training_steps == stage.total
    assert config.actor_rollout_ref.actor.optim.lr == stage.lr
    assert config.actor_rollout_ref.rollout.name == recipe.scale.engine
    assert config.data.train_batch_size % config.actor_rollout_ref.actor.ppo_mini_batch_size == 0


def check_sft(stage):
    config = config_of(stage.command)
    assert config.trainer.experiment_name == stage.name
    assert config.optim.lr == stage.lr
    assert config.trainer.total_training_steps == stage.total
    ranks = config.trainer.n_gpus_per_node * config.trainer.nnodes
    assert config.data.train_batch_size % ranks == 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RECIPES)
def test_verl_takes_every_key_of_every_command(name, scale, model, tmp_path):
    pytest.importorskip("verl")
    recipe = load_recipe(name, scale)
    stages = make_plan(recipe, tmp_path)
    arms = [stage for stage in stages if stage.start]
    assert {stage.arm for stage in arms} == set(recipe.arms)
    for stage in stages:
        if stage.kind == "rl":
            check_rl(stage, recipe, model)
        elif stage.kind == "sft":
            check_sft(stage)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo_turn", "ppo_paper", "grpo_turn", "rloo_turn"])
def test_verl_takes_every_algorithm(algorithm, model, tmp_path):
    pytest.importorskip("verl")
    group = 8 if algorithm in ("grpo_turn", "rloo_turn") else 1
    for scale in SCALES:
        words = [f"budget.rl.algorithm={algorithm}", f"budget.rl.group={group}"]
        recipe = load_recipe("fig6_gp_l", scale, words)
        check_rl(next(s for s in make_plan(recipe, Path(tmp_path)) if s.kind == "rl"), recipe, model)


@pytest.mark.slow
def test_verl_takes_a_backbone_that_vllm_does_not_serve(model, tmp_path):
    pytest.importorskip("verl")
    recipe = load_recipe("fig6_gp_vl", "node", ["model=vl/llama3_2_vision_11b"])
    stages = make_plan(recipe, tmp_path)
    stage = next(s for s in stages if s.kind == "rl")
    check_rl(stage, recipe, model)
    config = config_of(stage.command)
    rollout = config.actor_rollout_ref.rollout
    assert (rollout.name, rollout.dtype, rollout.free_cache_engine) == ("hf", "bfloat16", False)
    assert config.trainer.device == "cuda"
    assert not config.actor_rollout_ref.model.use_remove_padding
    assert not config.critic.model.use_remove_padding
    taught = next(s for s in stages if s.kind == "sft")
    check_sft(taught)
    assert not config_of(taught.command).model.use_remove_padding
