"""Every recipe at scales `node` and `cluster` has the paper's settings, but for what is listed or varied."""

from __future__ import annotations

import copy

import pytest
from omegaconf import OmegaConf

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe import paper_settings
from sftrl_ext.experiments.recipe.paper_settings import (
    DEVIATIONS,
    RATES,
    SETTINGS,
    TASKS,
    mismatches,
    settings_of,
    stage_kind,
    varied_settings,
)
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from tests.experiments.recipe.composing import config_of

RECIPES = sorted(path.stem for path in distinct_recipes())
VARIED = {
    "beyond_algorithms": {
        "ppo": ["algorithm", "epochs", "group", "minibatches"],
        "ppo_paper": ["algorithm", "epochs", "group", "minibatches"],
        "rloo": ["algorithm", "epochs", "group", "minibatches"],
        "grpo": ["algorithm", "epochs", "group", "minibatches"],
    },
    "beyond_losses": {"sft_kl": ["steps"], "dft_kl": ["steps"]},
    "beyond_on_policy": {"sft_own": ["steps"]},
    "beyond_prompts": {"sft_cot": ["steps"], "sft_rules_cot": ["steps"]},
    "fig9_rl_without_init": {"rl": ["lr"]},
    "fig10_attempts": {"attempts_1": ["updates"], "attempts_3": ["updates"], "attempts_10": ["updates"]},
    "fig15_suboptimal_sft": {"sft_suboptimal": ["steps"]},
    "fig16_sft_ablation": {"all": ["lr"], "frozen_vision": ["lr"], "frozen_adapter": ["lr"]},
    "fig17_rl_rates": {"rl": ["lr"]},
    "fig19_overfit_init": {"rl_after": ["lr"]},
}
"""All that recipes change on purpose; an entry more is a recipe that is no longer the paper's."""


def trained(recipe, run_dir):
    return [stage for stage in make_plan(recipe, run_dir) if stage.kind in ("sft", "rl")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale"), [*((name, "node") for name in RECIPES), ("fig6_gp_vl", "cluster")]
)
def test_every_stage_has_the_papers_settings(name, scale, tmp_path):
    pytest.importorskip("verl")
    recipe = load_recipe(name, scale)
    lines = []
    for stage in trained(recipe, tmp_path):
        lines += mismatches(recipe, stage.arm, stage.kind, config_of(stage.command))
    assert lines == []
    assert varied_settings(recipe) == VARIED.get(recipe.name, {})


@pytest.mark.parametrize("name", RATES)
def test_figures_that_vary_a_rate_have_the_papers_rates(name, tmp_path):
    rates: dict[str, list[float]] = {}
    for stage in trained(load_recipe(name, "node"), tmp_path):
        if stage.arm in RATES[name]:
            rates.setdefault(stage.arm, []).append(stage.lr)
    assert {arm: sorted(values) for arm, values in rates.items()} == {
        arm: pytest.approx(sorted(values)) for arm, values in RATES[name].items()
    }


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """The configs of the first stage of each kind of ``fig6_gp_l`` at `node`."""
    pytest.importorskip("verl")
    recipe = load_recipe("fig6_gp_l", "node")
    stages = {stage.arm: stage for stage in trained(recipe, tmp_path_factory.mktemp("run"))}
    return recipe, {arm: config_of(stage.command) for arm, stage in stages.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "key", "value", "noticed"),
    [
        ("rl", "critic.cliprange_value", 10.0, None),
        ("rl", "actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla", None),
        ("rl", "actor_rollout_ref.actor.loss_agg_mode", "seq-mean-token-sum", None),
        ("rl", "sftrl.responses", None, None),
        ("rl", "actor_rollout_ref.actor.optim.num_cycles", 0.0, "lr of the last update / lr"),
        ("rl", "actor_rollout_ref.actor.ppo_mini_batch_size", 128, "optimizer batches per epoch"),
        ("rl", "critic.optim.lr", 1e-5, None),
        ("rl", "critic.optim.weight_decay", 0.01, None),
        ("rl", "critic.shuffle", False, None),
        ("sft", "data.train_batch_size", 64, None),
        ("init", "trainer.total_training_steps", 200, None),
        ("sft", "optim.lr_warmup_steps", 10, None),
    ],
)
def test_another_value_is_noticed(arm, key, value, noticed, composed):
    recipe, configs = composed
    config = copy.deepcopy(configs[arm])
    kind = "rl" if arm == "rl" else "sft"
    assert mismatches(recipe, arm, kind, config) == []
    OmegaConf.update(config, key, value)
    (line,) = mismatches(recipe, arm, kind, config)
    assert line.startswith(f"{arm}: {noticed or key} is ")


def test_an_arm_is_excused_only_for_what_it_varies(monkeypatch, tmp_path):
    pytest.importorskip("verl")
    recipe = load_recipe("fig9_rl_without_init", "node")
    stage = trained(recipe, tmp_path)[0]
    config = config_of(stage.command)
    assert mismatches(recipe, "rl", "rl", config) == []
    monkeypatch.setattr(paper_settings, "varied_keys", lambda recipe, arm: set())
    lines = mismatches(recipe, "rl", "rl", config)
    assert [line.split(" is ")[0] for line in lines] == [
        "rl: actor_rollout_ref.actor.optim.lr",
        "rl: critic.optim.lr",
        "rl: lr of the last update / lr",
    ]


def test_every_task_and_stage_has_settings():
    for task in TASKS:
        for stage in ("init", "sft", "rl"):
            keys = [setting.key for setting in settings_of(task, stage)]
            assert keys and len(keys) == len(set(keys))
    rate = {s.key: s.value for s in settings_of("virl_vl", "rl")}["critic.optim.lr"]
    assert rate == 1e-7 and stage_kind("dft", "sft") == "sft" and stage_kind("init", "sft") == "init"
    assert {key for s in SETTINGS for key in s.stage.split()} == {"init", "sft", "rl"}
    assert all(d.reason and d.paper != d.ours for d in DEVIATIONS)
