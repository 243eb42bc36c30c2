"""Tokens, FLOPs and disk of plans against sums by hand."""

import pytest

from sftrl_ext.experiments.planner import disk
from sftrl_ext.experiments.planner.architectures import KNOWN
from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages
from sftrl_ext.experiments.planner.stages.workload import workload_of
from sftrl_ext.experiments.planner.work import forward_flops
from sftrl_ext.experiments.recipe.recipe_files import load_recipe


def plans_of(name, scale="node", *overrides):
    return {plan.stage.partition("-lr")[0]: plan for plan in plan_stages(load_recipe(name, scale, overrides))}


def test_a_training_step_is_six_flops_a_parameter_and_token():
    """Plus a third for recomputation, plus attention; embeddings are read, not multiplied."""
    llama = KNOWN["Llama-3.1-8B-Instruct"]
    row = 225.0
    weights = llama.parameters - llama.vocab * llama.hidden
    assert forward_flops(llama, row, 0, 0) == pytest.approx(2 * weights * row, rel=0.01)
    plan = plans_of("fig6_gp_l")["sft"]
    tokens = 1750 * 128 * plan.workload.sft_row
    assert plan.work.trained == tokens
    assert plan.work.total_flops == pytest.approx(4 / 3 * 6 * weights * tokens, rel=0.01)


def test_an_update_of_rl_counts_every_pass():
    plan = plans_of("fig6_gp_l")["rl"]
    lengths, rows = plan.workload, 20 * 2048 / 3  # whole episodes of three responses on average
    assert lengths.row == lengths.prompt + 3 * lengths.answer + 2 * lengths.feedback
    assert plan.work.generated == pytest.approx(rows * 3 * lengths.answer)
    assert plan.work.trained == pytest.approx(4 * rows * lengths.row)
    flops = plan.work.flops
    assert flops["reference"] == flops["old log-probs"] > flops["values"]
    assert flops["update actor"] == pytest.approx(16 * flops["old log-probs"])
    without = plans_of(
        "fig6_gp_l", "node", "budget.rl.algorithm=rloo_turn", "budget.rl.group=4", "budget.rl.responses=null"
    )["rl"]
    assert not without.work.flops["values"] and not without.work.flops["update critic"]
    assert without.peak.total <= plan.peak.total


def test_disk_is_what_the_trainers_write_and_what_is_kept_of_it():
    """Sharded float32 weights and Adam of actor and critic, and float32 weights for evaluation."""
    llama = KNOWN["Llama-3.1-8B-Instruct"]
    plans = plans_of("fig6_gp_l")
    assert plans["sft"].disk[2] == 10 * 16 * llama.parameters
    assert plans["rl"].disk[2] == 20 * (16 * llama.parameters + 12 * llama.critic_parameters)
    total = sum(plan.disk[2] for plan in plans.values())
    assert total == pytest.approx(5.8e12, rel=0.02)
    kept = plans["rl"].disk[0]
    assert kept == 20 * 2 * llama.parameters + 12 * llama.parameters + 12 * llama.critic_parameters
    everything = plans_of("fig6_gp_l", "node", "scale.training_state=all", "model.dtype=float32")["rl"]
    assert everything.disk[0] == everything.disk[2]


def test_while_a_step_is_saved_the_one_before_is_there():
    sizes = (1000, 1000, 0, 4)
    assert disk.peak_checkpoint_bytes(*sizes) == disk.checkpoint_bytes(*sizes) == 4 * 16_000
    policy = disk.policy_of(load_recipe("fig6_gp_l", "node"))
    newest = disk.checkpoint_bytes(*sizes, policy=policy)
    assert newest == 4 * 2_000 + 12_000
    # The newest is written in float32 before it is narrowed.
    assert disk.peak_checkpoint_bytes(*sizes, policy=policy) == newest + 12_000 + 2_000


def test_pictures_of_routes_are_an_eighth_of_seventy_gigabytes_an_update():
    plan = plans_of("fig6_virl_vl")["rl"]
    assert plan.traffic == pytest.approx(70e9 / 8, rel=0.1)
    assert plan.host["data"] >= plan.traffic


def test_images_take_the_tokens_their_processor_makes():
    recipe = load_recipe("fig6_gp_vl", "node")
    vision = KNOWN["Qwen2.5-VL-7B-Instruct"].vision
    assert vision.tokens(1200, 1200) == 1849 and vision.patches(1200, 1200) == 7396
    assert KNOWN["Qwen3-VL-8B-Instruct"].vision.tokens(1216, 1216) == 1444
    lengths = workload_of(recipe, KNOWN["Qwen2.5-VL-7B-Instruct"])
    assert lengths.image_tokens == 1849 and lengths.prompt > 1849


def test_frozen_parts_have_no_optimizer():
    plans = plan_stages(load_recipe("fig16_sft_ablation", "node"))
    optimizer = {plan.stage.partition("-lr")[0]: plan.phases[0].parts["optimizer"] for plan in plans[:-1]}
    seven = KNOWN["Qwen2.5-VL-7B-Instruct"]
    assert optimizer["all"] == 8 * seven.parameters / 8
    assert optimizer["frozen_vision"] == optimizer["all"] - seven.frozen_parameters("vision")
    assert optimizer["frozen_adapter"] == optimizer["all"] - seven.vision_parameters


def test_an_anchored_loss_holds_the_start_model_too():
    plans = plans_of("beyond_losses")
    more = plans["sft_kl"].phases[0].parts["weights"] - plans["sft"].phases[0].parts["weights"]
    assert more == 4 * KNOWN["Llama-3.1-8B-Instruct"].parameters / 8


def test_an_update_may_count_responses():
    """Where a budget has the key, as many episodes are played as give that many responses."""
    from types import SimpleNamespace

    from sftrl_ext.experiments.planner.stages.rl_stage import episodes_of

    lengths = workload_of(load_recipe("fig6_virl_l", "node"), KNOWN["Llama-3.1-8B-Instruct"])
    assert lengths.responses == pytest.approx(16.5)
    assert episodes_of(SimpleNamespace(episodes=7, responses=None), lengths) == 7
    assert episodes_of(SimpleNamespace(episodes=7, responses=2048), lengths) == 2048 / lengths.responses
