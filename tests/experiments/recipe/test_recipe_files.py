import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.arms import arm_runs
from sftrl_ext.experiments.recipe.recipe_files import (
    find_recipe,
    from_yaml,
    load_recipe,
    recipe_files,
    to_yaml,
)
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.paths import recipes_dir

RECIPES = sorted({path.stem for path in recipe_files().values()})


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_composes_at_every_scale(name, scale):
    recipe = load_recipe(name, scale)
    assert recipe.name == name
    assert recipe.scale.name == scale
    assert recipe.budget.rl.episodes >= 1


def test_overrides_reach_the_recipe_and_survive_yaml(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke", ["budget.rl.lr=1e-5", "sweep.seeds=[0,3]"])
    assert recipe.budget.rl.lr == 1e-5
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert from_yaml(tmp_path / "recipe.yaml") == recipe


def test_a_key_of_a_null_group_is_named():
    with pytest.raises(SftrlError, match=r"budget\.dialogues\.rows=9 sets a key of a group that is null"):
        load_recipe("beyond_unseen_rules", "smoke", ["budget.dialogues.rows=9"])


def test_an_arm_can_be_added_and_left_out():
    recipe = load_recipe("fig6_gp_l", "smoke", ["~arms.rl", "arms.late.kind=rl", "arms.late.start=sft@50%"])
    assert list(recipe.arms) == ["sft", "late"]
    assert [(run.start.stage, run.start.step) for run in arm_runs(recipe)] == [
        ("init", 4), ("sft-lr0.0002-s0", 2),
    ]  # fmt: skip


def test_the_list_of_arms_of_an_older_run_folder_is_read(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke")
    (tmp_path / "recipe.yaml").write_text(
        to_yaml(recipe).split("arms:")[0] + "arms:\n- sft\n- rl\ntask:" + to_yaml(recipe).split("\ntask:")[1]
    )
    assert from_yaml(tmp_path / "recipe.yaml").arms == recipe.arms


def test_a_recipe_is_found_by_the_names_it_has_also():
    files = recipe_files()
    assert files["fig5_gp_l"] == files["fig6_gp_l"]
    assert set(files) == {path.stem for path in recipes_dir().glob("*.yaml")}
    for name, path in files.items():
        assert name in (path.stem, *load_recipe(name, "smoke").also)
        assert find_recipe(f"recipes/{name}.yaml") == find_recipe(name)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["budget.rl.lrr=3"], ["RLConfig", "'lrr'", "Did you mean 'lr'"]),
        (["bugdet.rl.lr=3"], ["budget"]),
        (["budget.rl.lr=fast"], ["fast"]),
        (["budget.rl.episodes=33"], ["budget.rl.episodes", "33"]),
        (["budget.rl.responses=0"], ["budget.rl.responses", "0"]),
        (["budget.eval.samples=0"], ["budget.eval.samples: 0"]),
        (["budget.eval.samples=4", "budget.eval.temperature=0"], ["budget.eval.samples: 4", "temperature 0"]),
        (["budget.rl.updates=-3"], ["budget.rl.updates: -3; expected 1 or more"]),
        (["+arms.rl.budget.updates=-3"], ["arms.rl: budget.rl.updates: -3; expected 1 or more"]),
        (["task.reward=outcme"], ["task.reward", "Did you mean 'outcome'"]),
        (["+budget.rl.lrr=3"], ["RLConfig", "'lrr'", "Did you mean 'lr'"]),
        (["arms=[sft]"], ["arms", "found a list"]),
        (["arms.rl.kind=rll"], ["arms.rl.kind", "'rll'", "Did you mean 'rl'"]),
        (["arms.rl.start=sftt@2"], ["arms.rl.start", "Did you mean 'sft'"]),
        (["arms.rl.start=sft@3"], ["step 3 is not saved", "2, 4"]),
        (["arms.rl.start=sft"], ["arms.rl.start", "sft@last"]),
        (["arms.rl.start=sft@last", "arms.sft.start=rl@last"], ["circle"]),
        (["arms.rl.start=sft@last", "sweep.sft_lrs=[1e-4,2e-4]"], ["'sft' has 2 learning rates"]),
        (["+arms.sft.budget.stepz=3"], ["arms.sft.budget", "Did you mean 'steps'"]),
        (["+arms.sft.budget.steps=three"], ["arms.sft.budget", "three"]),
        (["+arms.sft.times.schedule=2"], ["arms.sft.times", "'constant'"]),
        (["arms.rl.loss=dft"], ["arms.rl.loss", "no effect"]),
        (["arms.rl.rows=reasoned"], ["arms.rl.rows", "unknown rows of RL", "learnable"]),
        (["arms.sft.rows=reasond"], ["arms.sft.rows", "Did you mean 'reasoned'"]),
        (["arms.sft.kl_coef=0.2"], ["arms.sft.kl_coef", "no effect"]),
        (["arms.sft.freeze=vision"], ["arms.sft.freeze", "no effect"]),
        (["+arms.init.kind=sft"], ["arms.init", "not a name"]),
        (["~arms.sft", "~arms.rl"], ["arms", "none"]),
    ],
)
def test_a_wrong_key_or_value_is_named(overrides, names):
    with pytest.raises(SftrlError) as raised:
        load_recipe("fig6_gp_l", "smoke", overrides)
    for name in names:
        assert name in str(raised.value)
    assert "fig6_gp_l.yaml" in str(raised.value)


def test_answers_of_routes_have_no_other_reasoning():
    with pytest.raises(
        SftrlError, match=r"fig6_virl_l\.yaml: arms\.sft\.rows: 'reasoned' is not for task kind 'virl'"
    ):
        load_recipe("fig6_virl_l", "smoke", ["arms.sft.rows=reasoned"])


def test_a_key_that_does_not_exist_in_a_recipe_file(tmp_path):
    text = find_recipe("fig6_gp_l").read_text() + "\nexpcted: []\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SftrlError, match=r"mine\.yaml.*'expcted'.*Did you mean 'expected'"):
        load_recipe(tmp_path / "mine.yaml", "smoke")


def test_unknown_recipe_and_scale_get_the_nearest_name():
    with pytest.raises(SftrlError, match="Did you mean 'fig6_gp_l'"):
        load_recipe("fig6_gpl", "smoke")
    with pytest.raises(SftrlError, match="Did you mean 'laptop'"):
        load_recipe("fig6_gp_l", "labtop")


def test_a_run_without_any_model_is_refused():
    with pytest.raises(SftrlError, match=r"model\.path"):
        load_recipe("fig6_gp_l", "smoke", ["budget.base=null"])
