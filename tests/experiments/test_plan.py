import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError
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


def stage_value(command, key):
    return next(word.partition("=")[2] for word in command if word.startswith(f"{key}="))


def compose_as_verl_does(command):
    """Compose the config of a training command from its words, with verl's own schema."""
    name = command[command.index("--config-name") + 1]
    overrides = list(command[command.index("--config-name") + 2 :])
    folder = command[command.index("--config-path") + 1]
    with initialize_config_dir(config_dir=folder, version_base=None):
        config = compose(config_name=name, overrides=[o for o in overrides if not o.startswith("hydra.")])
    OmegaConf.resolve(config)
    return config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder: verl reads the start model of a critic while it checks a config."""
    pytest.importorskip("transformers")
    from sftrl_ext.experiments.recipe import ModelConfig
    from sftrl_ext.experiments.tiny_model import build_tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny_llama(folder, ["24"], ModelConfig(name="t", hidden_size=32, layers=1, heads=1), seed=0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("algorithm", ["ppo_turn", "ppo_paper", "grpo_turn", "rloo_turn"])
def test_verl_takes_every_key_of_the_rl_command(scale, algorithm, model, tmp_path):
    pytest.importorskip("verl")
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    group = 8 if algorithm in ("grpo_turn", "rloo_turn") else 1
    recipe = load_recipe("fig6_gp_l", scale, [f"budget.rl.algorithm={algorithm}", f"budget.rl.group={group}"])
    stage = next(s for s in make_plan(recipe, tmp_path) if s.kind == "rl")
    init = stage_value(stage.command, "actor_rollout_ref.model.path")
    Path(init).parent.mkdir(parents=True)
    Path(init).symlink_to(model)
    config = compose_as_verl_does(stage.command)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert need_critic(config) == algorithm.startswith("ppo")
    assert config.trainer.v1.trainer_mode == "sftrl_turn"
    assert config.trainer.experiment_name == stage.name
    assert config.actor_rollout_ref.rollout.name == recipe.scale.engine
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == recipe.budget.rl.episodes


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_verl_takes_every_key_of_the_sft_command(scale, tmp_path):
    pytest.importorskip("verl")
    for stage in make_plan(load_recipe("fig6_gp_l", scale), tmp_path):
        if stage.kind == "sft":
            config = compose_as_verl_does(stage.command)
            assert config.trainer.experiment_name == stage.name
            assert config.optim.lr == stage.lr
            assert config.trainer.total_training_steps == stage.total
            assert config.data.train_batch_size % config.data.micro_batch_size_per_gpu == 0


VISION = ("fig6_gp_vl", "fig7_gp_vl", "fig8_recognition")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", VISION)
def test_recipes_of_images_plan_at_every_scale(name, scale, tmp_path):
    recipe = load_recipe(name, scale)
    assert recipe.task.modality == "image" and recipe.task.suits == "black"
    assert {"id", "rule_ood", "visual_ood"} <= set(recipe.task.eval_splits)
    assert (recipe.model.vision is None) == (recipe.model.path is not None)
    assert len(make_plan(recipe, tmp_path)) >= 7


def test_a_backbone_by_name(tmp_path):
    recipe = load_recipe("fig7_gp_vl", "node", ["model=vl/qwen3_vl_8b"])
    assert recipe.model.path == "Qwen/Qwen3-VL-8B-Instruct" and recipe.task.look["width"] == 1216


@pytest.mark.slow
def test_a_backbone_that_vllm_does_not_serve(model, tmp_path):
    pytest.importorskip("verl")
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    recipe = load_recipe("fig6_gp_vl", "node", ["model=vl/llama3_2_vision_11b"])
    stages = make_plan(recipe, tmp_path)
    stage = next(s for s in stages if s.kind == "rl")
    init = stage_value(stage.command, "actor_rollout_ref.model.path")
    Path(init).parent.mkdir(parents=True)
    Path(init).symlink_to(model)
    config = compose_as_verl_does(stage.command)
    validate_config(config, need_reference_policy(config), need_critic(config))
    rollout = config.actor_rollout_ref.rollout
    assert (rollout.name, rollout.dtype, rollout.free_cache_engine) == ("hf", "bfloat16", False)
    assert config.trainer.device == "cuda"
    assert (
        not config.actor_rollout_ref.model.use_remove_padding and not config.critic.model.use_remove_padding
    )
    taught = compose_as_verl_does(next(s for s in stages if s.kind == "sft").command)
    assert not taught.model.use_remove_padding


def test_an_engine_that_a_backend_does_not_have(tmp_path):
    recipe = load_recipe("fig6_gp_l", "gpu", ["scale.engine=sglang"])
    with pytest.raises(SftrlError, match="scale.engine=sglang; expected one of: hf on cpu, vllm on cpu"):
        make_plan(recipe, tmp_path)


def test_only_the_arms_are_frozen(tmp_path):
    stages = make_plan(load_recipe("fig7_gp_vl", "smoke", ["model.freeze=vision"]), tmp_path)
    frozen = {stage.name for stage in stages if stage.env.get("SFTRL_FREEZE") == "vision"}
    assert frozen == {stage.name for stage in stages if stage.arm in ("sft", "rl")}
    with pytest.raises(SftrlError, match="vision_and_adapter"):
        make_plan(load_recipe("fig7_gp_vl", "smoke", ["model.freeze=vision_and_adaptor"]), tmp_path)
