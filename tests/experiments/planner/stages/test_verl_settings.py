"""Settings of a command, against Hydra's composition on verl's own schema."""

import pytest
from omegaconf import OmegaConf

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.planner.stages.verl_settings import PPO_DEFAULTS, SFT_DEFAULTS, command_settings
from sftrl_ext.experiments.recipe.recipe_files import load_recipe

CASES = [
    ("fig6_gp_l", "laptop", []),
    ("fig6_gp_l", "node", []),
    ("fig6_gp_vl", "gpu", []),
    ("fig6_gp_vl", "node", ["model=vl/llama3_2_vision_11b"]),
    ("fig6_gp_l", "gpu", ["scale.offload=always", "verl_ppo=['critic.fsdp.model_dtype=bf16']"]),
]


def _leaves(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize(("recipe", "scale", "overrides"), CASES)
def test_they_are_what_verl_composes(recipe, scale, overrides, tmp_path):
    pytest.importorskip("verl")
    from tests.experiments.recipe.composing import config_of

    for stage in make_plan(load_recipe(recipe, scale, overrides), tmp_path):
        if stage.kind not in ("sft", "rl"):
            continue
        settings, composed = command_settings(stage.command), config_of(stage.command)
        for key in _leaves(PPO_DEFAULTS if stage.kind == "rl" else SFT_DEFAULTS):
            ours, theirs = OmegaConf.select(settings, key), OmegaConf.select(composed, key)
            if key.endswith("attn_implementation"):  # no key of verl's schema; ours is None where none is set
                continue
            assert ours == theirs, f"{stage.name}: {key}: planner {ours!r}, verl {theirs!r}"


def test_an_override_of_the_recipe_counts(tmp_path):
    override = "verl_ppo=['actor_rollout_ref.rollout.gpu_memory_utilization=0.25']"
    stages = make_plan(load_recipe("fig6_gp_l", "node", [override]), tmp_path)
    rl = next(stage for stage in stages if stage.kind == "rl")
    assert command_settings(rl.command).actor_rollout_ref.rollout.gpu_memory_utilization == 0.25
