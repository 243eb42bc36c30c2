"""Every recipe fits the hardware it names, and what does not fit is refused with the key to change."""

from dataclasses import replace

import pytest
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.planner.fit import HEADROOM, check_fit, misfits
from sftrl_ext.experiments.planner.hardware import HARDWARE, hardware_of
from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe

SDPA = [
    "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.model.use_remove_padding=false",
    "critic.model.use_remove_padding=false",
]
SDPA_SFT = ["+model.override_config.attn_implementation=sdpa", "model.use_remove_padding=false"]
RECIPES = [path.stem for path in distinct_recipes()]


def with_sdpa(recipe):
    """The same without flash-attn: padded rows, and log-probabilities without its kernel."""
    return replace(recipe, verl_ppo=[*recipe.verl_ppo, *SDPA], verl_sft=[*recipe.verl_sft, *SDPA_SFT])


@pytest.mark.parametrize("scale", ["gpu", "node", "cluster"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits(name, scale):
    recipe = load_recipe(name, scale)
    memory = hardware_of(recipe).memory
    for variant in (recipe, with_sdpa(recipe)):
        plans = plan_stages(variant)
        assert list(misfits(variant, plans)) == []
        for plan in plans:
            if plan.kind != "eval":
                assert 0 < plan.peak.total <= HEADROOM * memory
            assert all(size >= 0 for phase in plan.phases for size in phase.parts.values())
        check_fit(variant, plans)


@pytest.mark.parametrize(
    ("name", "scale", "overrides", "words"),
    [
        # Found before the budgets were planned: each of these was a recipe as it shipped.
        (
            "fig6_gp_vl",
            "gpu",
            ["budget.rl.algorithm=ppo_turn", "budget.rl.group=1", "scale.offload=none"],
            ["generate", "others 83.9", "scale.offload=idle"],
        ),
        ("fig6_gp_l", "gpu", ["model.path=meta-llama/Llama-3.1-8B-Instruct"], ["train", "scale.offload"]),
        ("fig6_gp_l", "node", ["budget.rl.micro_batch_size=16"], ["budget.rl.micro_batch_size"]),
        (
            "fig6_gp_l",
            "node",
            [
                "budget.rl.micro_batch_size=8",
                "scale.attention=flash_attention_2",  # of packed rows the entropy is computed in one piece
                "verl_ppo=['actor_rollout_ref.actor.entropy_from_logits_with_chunking=false',"
                "'actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=73728']",
            ],
            ["old log-probs", "logits", "budget.rl.micro_batch_size"],
        ),
        ("fig6_gp_l", "node", ["scale.host_memory_gb=64"], ["host", "scale.host_memory_gb"]),
        ("fig6_gp_l", "node", ["scale.disk_gb=1000"], ["checkpoints", "save_every", "scale.disk_gb"]),
        ("fig6_gp_l", "node", ["scale.n_gpus_per_node=1", "scale.offload=idle"], ["scale.offload=always"]),
        (
            "fig6_gp_l",
            "node",
            ["verl_ppo=['actor_rollout_ref.rollout.gpu_memory_utilization=0.15']"],
            ["keys and values of one sequence"],
        ),
    ],
)
def test_a_misfit_is_refused_with_the_key(name, scale, overrides, words):
    recipe = load_recipe(name, scale, overrides)
    with pytest.raises(SftrlError) as refused:
        check_fit(recipe)
    text = str(refused.value)
    assert name in text and "scale.check_fit=false" in text
    for word in words:
        assert word in text
    check_fit(replace(recipe, scale=replace(recipe.scale, check_fit=False)))


def test_what_the_refusal_advises_helps():
    recipe = load_recipe("fig6_gp_l", "gpu", ["model.path=meta-llama/Llama-3.1-8B-Instruct"])
    worst = {plan.stage: plan.peak.total for plan in plan_stages(recipe)}
    helped = load_recipe(
        "fig6_gp_l", "gpu", ["model.path=meta-llama/Llama-3.1-8B-Instruct", "scale.offload=always"]
    )
    for plan in plan_stages(helped):
        if plan.kind != "eval":
            assert plan.peak.total < worst[plan.stage] / 2


def test_a_run_is_refused_before_anything_is_written(tmp_path, capsys):
    words = ["run", "fig6_gp_l", "--scale", "gpu", "--run-dir", str(tmp_path / "run")]
    words += ["model.path=meta-llama/Llama-3.1-8B-Instruct"]
    assert main(words) == 2
    assert "does not fit" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_plan_prints_tables_then_commands(capsys, tmp_path):
    run_dir = str(tmp_path / "run")
    assert main(["plan", "fig6_gp_l", "--scale", "node", "--run-dir", run_dir]) == 0
    out = capsys.readouterr().out
    table, commands = out.index("| Stage |"), out.index("verl.trainer.sft_trainer")
    assert table < commands
    assert all(line.startswith("# ") for line in out.splitlines() if line.strip("# ").startswith("|"))
    assert "H100-80GB" in out and "within a factor" in out
    assert main(["plan", "fig6_gp_l", "--scale", "node", "--run-dir", run_dir, "--budget-only"]) == 0
    assert "verl.trainer" not in capsys.readouterr().out
    assert main(["plan", "fig6_gp_l", "--scale", "node", "--run-dir", run_dir, "--commands-only"]) == 0
    assert "| Stage |" not in capsys.readouterr().out


def test_plan_of_a_misfit_prints_what_is_needed_and_fails(capsys):
    words = ["plan", "fig6_gp_l", "--scale", "gpu", "model.path=meta-llama/Llama-3.1-8B-Instruct"]
    assert main(words) == 2
    streams = capsys.readouterr()
    assert "| Stage |" in streams.out and "does not fit" in streams.err


def test_an_unknown_model_is_planned_without_a_budget(capsys):
    from sftrl_ext.experiments.planner.printing import print_budget

    recipe = load_recipe("fig6_gp_l", "gpu", ["model.path=some/model"])
    print_budget(recipe, Console())
    assert "no budget" in capsys.readouterr().out
    check_fit(recipe)


def test_hardware_is_checked():
    with pytest.raises(SftrlError, match="H100-80GB"):
        plan_stages(load_recipe("fig6_gp_l", "node", ["scale.hardware=H100"]))
    with pytest.raises(SftrlError, match="scale.backend=cpu"):
        plan_stages(load_recipe("fig6_gp_l", "laptop", ["scale.hardware=H200"]))
    with pytest.raises(SftrlError, match="idle"):
        load_recipe("fig6_gp_l", "gpu", ["scale.offload=idl"])


def test_peak_flops_are_those_verl_uses():
    """verl computes its MFU against the same peaks."""
    pytest.importorskip("verl")
    from verl.utils.flops_counter import get_device_flops

    for name in HARDWARE:
        if name != "cpu":
            assert get_device_flops("B", name.partition("-")[0]) == HARDWARE[name].flops
