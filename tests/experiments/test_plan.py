import shlex
import sys

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.planner.fit import check_fit
from sftrl_ext.experiments.recipe.arms import arm_runs
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.schema import SCALES


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


def stages_of(recipe, run_dir):
    return {stage.name: stage for stage in make_plan(recipe, run_dir)}


def test_an_arm_starts_where_it_says_and_after_what_it_needs(tmp_path):
    words = ["arms.rl.start=sft@50%", "arms.cold.kind=rl", "arms.cold.start=base", "arms.late.kind=sft"]
    recipe = load_recipe("fig6_gp_l", "smoke", [*words, "arms.late.start=rl@last", "sweep.seeds=[3,4]"])
    stages = stages_of(recipe, tmp_path)
    names = list(stages)
    for seed in (3, 4):
        arms = [f"{arm}-lr0.0002-s{seed}" for arm in ("sft", "rl", "cold", "late")]
        assert [stages[name].start for name in arms] == [
            "init@4", f"sft-lr0.0002-s{seed}@2", "dialogues@4", f"rl-lr0.0002-s{seed}@2",
        ]  # fmt: skip
        assert names.index(arms[0]) < names.index(arms[1]) < names.index(arms[3])
        folder = tmp_path / "stages" / arms[1] / "checkpoints/global_step_2"
        assert stage_value(stages[arms[3]].command, "model.path") == f"{folder}/actor/huggingface"
        assert stage_value(stages[arms[1]].command, "actor_rollout_ref.model.path").endswith(
            f"{arms[0]}/checkpoints/global_step_2/huggingface"
        )


def test_a_start_of_one_seed_serves_all_and_no_init_is_trained_for_nobody(tmp_path):
    words = ["arms.sft.seeds=[7]", "arms.rl.start=sft@last", "arms.sft.start=base", "sweep.seeds=[0,1]"]
    stages = stages_of(load_recipe("fig6_gp_l", "smoke", words), tmp_path)
    assert "init" not in stages
    assert {stages[f"rl-lr0.0002-s{seed}"].start for seed in (0, 1)} == {"sft-lr0.0002-s7@4"}
    with pytest.raises(SftrlError, match="'sft' has no seed 1; it has 0, 7"):
        load_recipe("fig6_gp_l", "smoke", ["arms.sft.seeds=[0,7]", *words[1:]])
    trained = load_recipe(
        "fig6_gp_l", "smoke", [*words, "model.path=some/model", "budget.base=null", "budget.dialogues=null"]
    )
    assert stages_of(trained, tmp_path)["sft-lr0.0002-s7"].start == "model@0"


def test_an_arm_has_the_budget_but_for_what_it_changes(tmp_path):
    words = [
        "arms.rl.budget={algorithm: ppo_paper, updates: 3}",
        "arms.rl.times={updates: 2, save_every: 2.6}",
    ]
    words += ["arms.rl.lr_times=[0.5,1]", "arms.rl.max_attempts=2", "arms.other.kind=rl"]
    recipe = load_recipe("fig6_gp_l", "smoke", words)
    stages = stages_of(recipe, tmp_path)
    changed, other = stages["rl-lr0.0001-s0"], stages["other-lr0.0002-s0"]
    assert stage_value(changed.command, "algorithm") == "ppo_paper" and changed.total == 6
    assert stage_value(changed.command, "trainer.save_freq") == "3"
    assert stage_value(other.command, "algorithm") == "ppo_turn" and other.total == 2
    assert [run.rows for run in arm_runs(recipe)] == ["sft-s0", "rl-s0", "rl-s0", "other-s0"]
    assert recipe.budget.rl.updates == 2


def test_arms_of_the_same_rows_share_a_file(tmp_path):
    words = ["arms.dft={kind: sft, loss: dft}", "arms.long={kind: sft, budget: {rows: 999}}"]
    words += ["arms.mixed={kind: sft, splits: [id, all_5]}", "arms.old={kind: sft, rows: suboptimal}"]
    words += ["arms.cot={kind: sft, rows: reasoned}", "arms.cot_dft={kind: sft, rows: reasoned, loss: dft}"]
    rows = {run.arm: run.rows for run in arm_runs(load_recipe("fig6_gp_l", "smoke", words))}
    assert rows == {
        "sft": "sft-s0", "rl": "rl-s0", "dft": "sft-s0",
        "long": "long-s0", "mixed": "mixed-s0", "old": "old-s0",
        "cot": "cot-s0", "cot_dft": "cot-s0",
    }  # fmt: skip


VISION = ("fig6_gp_vl", "fig7_gp_vl", "fig16_sft_ablation", "fig17_rl_rates")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", VISION)
def test_recipes_of_images_plan_at_every_scale(name, scale, tmp_path):
    recipe = load_recipe(name, scale)
    assert recipe.task.modality == "image" and recipe.task.suits == "black"
    assert {"id", "rule_ood", "visual_ood"} <= set(recipe.task.eval_splits)
    assert (recipe.model.vision is None) == (recipe.model.path is not None)
    assert len(make_plan(recipe, tmp_path)) >= 6


def test_a_backbone_by_name(tmp_path):
    recipe = load_recipe("fig7_gp_vl", "node", ["model=vl/qwen3_vl_8b"])
    assert recipe.model.path == "Qwen/Qwen3-VL-8B-Instruct" and recipe.task.look["width"] == 1216


def test_an_engine_that_a_backend_does_not_have(tmp_path):
    recipe = load_recipe("fig6_gp_l", "gpu", ["scale.engine=sglang"])
    with pytest.raises(SftrlError, match="scale.engine=sglang; expected one of: hf on cpu, vllm on cpu"):
        make_plan(recipe, tmp_path)


def test_only_the_arms_are_frozen(tmp_path):
    stages = make_plan(load_recipe("fig7_gp_vl", "smoke", ["model.freeze=vision"]), tmp_path)
    frozen = {stage.name for stage in stages if stage.env.get("SFTRL_FREEZE") == "vision"}
    assert frozen == {stage.name for stage in stages if stage.arm in ("sft", "rl")}
    words = ["arms.sft.freeze=vision_and_adapter", "arms.sft.loss=kl", "arms.sft.kl_coef=0.5"]
    stages = make_plan(load_recipe("fig7_gp_vl", "smoke", words), tmp_path)
    told = {stage.arm: stage.env for stage in stages if "VERL_ENGINE_VENDOR" in stage.env}
    assert list(told) == ["sft"] and told["sft"]["SFTRL_FREEZE"] == "vision_and_adapter"
    assert (told["sft"]["SFTRL_SFT_LOSS"], told["sft"]["SFTRL_KL_COEF"]) == ("kl", "0.5")
    with pytest.raises(SftrlError, match="vision_and_adapter"):
        make_plan(load_recipe("fig7_gp_vl", "smoke", ["model.freeze=vision_and_adaptor"]), tmp_path)


GIVEN = ["model.path=/init", "model.role=init", "budget.base=null", "budget.dialogues=null"]


def test_arms_start_from_a_given_init_and_none_is_trained(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke", GIVEN)
    stages = stages_of(recipe, tmp_path)
    assert [stage.kind for stage in stages.values()] == ["data", "model", "sft", "rl", "eval", "report"]
    for name, key in (("sft-lr0.0002-s0", "model.path"), ("rl-lr0.0002-s0", "actor_rollout_ref.model.path")):
        assert stages[name].start == "model@0"
        assert stage_value(stages[name].command, key) == str(tmp_path / "start_model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.init_tokens=5"], "model.init_tokens: 5; has no effect without model.role=init"),
        (["model.role=start"], "model.role: unknown role of the model 'start'"),
        (["model.role=init"], "model.path is null; expected the init's folder"),
        ([*GIVEN[:2]], "budget.base: expected null with model.role=init"),
        ([*GIVEN, "model.init_tokens=-1"], "model.init_tokens: -1; expected 0 or more"),
        ([*GIVEN, "arms.rl.start=base"], "arms.rl.start: 'base', but model.role is init"),
    ],
)
def test_keys_that_contradict_a_given_init_are_refused(words, message):
    with pytest.raises(SftrlError, match=message):
        load_recipe("fig6_gp_l", "smoke", words)


@pytest.mark.parametrize("name", ["fig6_gp_l", "fig6_gp_vl", "fig6_virl_l", "fig6_virl_vl"])
def test_a_folder_of_the_papers_backbone_composes_at_node(name, tmp_path, capsys):
    """vLLM does not serve it, so the command line sets the engine; an override of the user's still counts."""
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    words = ["plan", name, "--scale", "node", "--model", str(tmp_path), "model.role=init", "--commands-only"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "8 hf engines" in printed and "backend=gpu_hf" in printed
    assert "optimizer_offload=true" in printed
    assert "stages/init" not in printed
    assert main([*words, "scale.engine=vllm"]) == 0
    assert "8 vllm engines" in capsys.readouterr().out


SMALLER = {
    "fig6_gp_l": [],
    "fig6_virl_l": [],
    "fig6_gp_vl": [
        "budget.rl.max_prompt_length=1024",
        "budget.rl.max_response_length=2048",
        "budget.rl.max_turn_tokens=256",
        "budget.rl.micro_batch_size=1",
    ],
    "fig6_virl_vl": ["budget.rl.max_prompt_length=2048", "budget.rl.micro_batch_size=1"],
}


@pytest.mark.parametrize("name", SMALLER)
def test_the_papers_backbone_fits_on_cards_of_80_gb(name):
    """With the keys that docs/authors.md gives."""
    check_fit(load_recipe(name, "node", ["model=vl/llama3_2_vision_11b", "model.role=init", *SMALLER[name]]))
