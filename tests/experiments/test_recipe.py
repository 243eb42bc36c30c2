import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe import SCALES, find_recipe, from_yaml, load_recipe, to_yaml
from sftrl_ext.paths import recipes_dir

RECIPES = sorted(path.stem for path in recipes_dir().glob("*.yaml"))


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


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["budget.rl.lrr=3"], ["RLConfig", "'lrr'", "Did you mean 'lr'"]),
        (["bugdet.rl.lr=3"], ["budget"]),
        (["budget.rl.lr=fast"], ["fast"]),
        (["budget.rl.episodes=33"], ["budget.rl.episodes", "33"]),
        (["arms=[sft,rll]"], ["'rll'", "Did you mean 'rl'"]),
    ],
)
def test_a_wrong_key_or_value_is_named(overrides, names):
    with pytest.raises(SftrlError) as raised:
        load_recipe("fig6_gp_l", "smoke", overrides)
    for name in names:
        assert name in str(raised.value)
    assert "fig6_gp_l.yaml" in str(raised.value)


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
