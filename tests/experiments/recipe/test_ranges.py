"""Ranges of a recipe's numbers, and names that must be known, before anything of it runs."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import get_args, get_type_hints

import pytest
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.ranges import RANGES, check_names, check_ranges, check_task
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, find_recipe, load_recipe
from sftrl_ext.experiments.recipe.schema import ExpectedConfig, Recipe
from sftrl_ext.plugins import load_plugins


@pytest.fixture(scope="module")
def hands():
    return load_recipe("fig6_gp_l", "smoke")


@pytest.fixture(scope="module")
def routes():
    return load_recipe("fig6_virl_l", "smoke")


def check(recipe, *overrides):
    """Check a recipe with other values; composing it again for each would take far longer."""
    merged = OmegaConf.merge(OmegaConf.structured(recipe), OmegaConf.from_dotlist(list(overrides)))
    changed = OmegaConf.to_object(merged)
    check_ranges(changed)
    check_names(changed)
    check_task(changed)


NUMBERS = [
    ("budget.rl.updates", "-3", "1 or more"),
    ("budget.rl.rows", "-5", "1 or more"),
    ("budget.sft.lr", "-1", "above 0"),
    ("budget.rl.lr", "nan", "above 0"),
    ("budget.rl.critic_lr", "inf", "above 0"),
    ("budget.init.warmup_ratio", "1.5", "0 or more and at most 1"),
    ("budget.rl.save_every", "0", "1 or more, or -1"),
    ("budget.sft.save_every", "-2", "1 or more, or -1"),
    ("budget.rl.temperature", "0", "above 0"),
    ("budget.eval.temperature", "nan", "0 or more"),
    ("budget.eval.hands", "0", "1 or more"),
    ("budget.eval.top_p", "1.5", "above 0 and at most 1"),
    ("task.max_attempts", "-1", "1 or more"),
    ("task.routes.holdout", "1", "0 or more and below 1"),
    ("scale.nnodes", "0", "1 or more"),
    ("model.layers", "0", "1 or more"),
]


@pytest.mark.parametrize(("key", "value", "expected"), NUMBERS)
def test_a_number_out_of_range_is_refused(hands, key, value, expected):
    with pytest.raises(SftrlError, match=rf"^{key}: {value}; expected {expected}\.$"):
        check(hands, f"{key}={value}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.seeds=[0,-1]", r"sweep\.seeds\[1\]: -1; expected 0 or more"),
        ("sweep.rl_lrs=[0]", r"sweep\.rl_lrs\[0\]: 0; expected above 0"),
        ("arms.rl.lrs=[-1e-5]", r"arms\.rl\.lrs\[0\]: -1e-05; expected above 0"),
        ("arms.sft.seeds=[-1]", r"arms\.sft\.seeds\[0\]: -1"),
        ("arms.rl.max_attempts=0", r"arms\.rl\.max_attempts: 0; expected 1 or more"),
        ("arms.sft.times.steps=-2", r"arms\.sft\.times\.steps: -2; expected above 0"),
        ("budget.eval.hands_of.id=0", r"budget\.eval\.hands_of\.id: 0; expected 1 or more"),
    ],
)
def test_a_number_of_a_list_or_an_arm_is_refused(hands, override, message):
    with pytest.raises(SftrlError, match=message):
        check(hands, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.eval_splits=[nope]", r"task\.eval_splits: unknown split 'nope'.*Known: .*rule_ood"),
        ("task.train_split=idd", r"task\.train_split: .*Did you mean 'id'"),
        ("task.pretrain_splits=[id,rule_odd]", r"task\.pretrain_splits: .*Did you mean 'rule_ood'"),
        ("arms.rl.splits=[rule_odd]", r"arms\.rl\.splits: .*Did you mean 'rule_ood'"),
        ("task.reward=brevty", r"task\.reward: unknown reward function 'brevty'.*Known: binary"),
        ("task.reward=outcme", r"task\.reward: .*Did you mean 'outcome'"),
        ("task.profile=exactt", r"task: unknown profile 'exactt'\. Did you mean 'exact'"),
        ("task.modality=images", r"task: unknown modality 'images'\. Did you mean 'image'"),
        ("task.template=defualt", r"task: .*defualt"),
        ("task.suits=blak", r"task: .*Did you mean 'black'"),
        ("task.draw=idd", r"task: .*Did you mean 'iid'"),
        ("task.pretrain_suits=blak", r"task: .*Did you mean 'black'"),
        ("task.solutions=randm", r"task\.solutions: .*Did you mean 'random'"),
        ("model.dtype=float23", r"model\.dtype: .*Did you mean 'float32'"),
        ("budget.rl.algorithm=ppo_trun", r"budget\.rl\.algorithm: .*Did you mean 'ppo_turn'"),
        ("arms.rl.budget.algorithm=x", r"arms\.rl\.budget\.algorithm: unknown algorithm 'x'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(hands, override, message):
    with pytest.raises(SftrlError, match=f"^{message}"):
        check(hands, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.eval_splits=[ood_large]", r"task\.eval_splits: unknown split 'ood_large'"),
        ("task.profile=x", r"task: unknown profile 'x'"),
        ("task.template=defualt", r"task: .*defualt"),
        ("task.routes.home.style=brik", r"task\.routes\.home: .*Did you mean 'brick'"),
        ("task.routes.away=[{width: 3}]", r"task\.routes\.away\[0\]: the width of a panorama"),
        ("task.routes.points_per_leg=1000000", r"task\.routes\.home: the points a leg of a city must be"),
        ("task.routes.missing_panorama=skp", r"task\.routes\.missing_panorama: .*Did you mean 'skip'"),
    ],
)
def test_settings_of_routes_are_checked_when_composed(routes, override, message):
    with pytest.raises(SftrlError, match=f"^{message}"):
        check(routes, override)


def test_splits_of_any_target_and_rewards_of_a_plugin_are_known(hands, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from sftrl_ext.reward_fns import register_reward\n"
        "@register_reward('of_my_file')\n"
        "def mine(step, facts):\n"
        "    return 0.0\n"
    )
    load_plugins([str(mine)])
    check(hands, "task.reward=of_my_file", "task.eval_splits=[ood_target_36,all_5]")


def test_every_number_of_a_recipe_has_a_range():
    def parts(kind):
        yield kind
        for hint in get_type_hints(kind).values():
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner):
                    yield from parts(inner)

    for kind in set(parts(Recipe)) - {ExpectedConfig}:
        for name, hint in get_type_hints(kind).items():
            numeric = {int, float} & {hint, *get_args(hint)}
            assert not numeric or name in RANGES.get(kind, {}), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("path", distinct_recipes(), ids=lambda path: path.stem)
def test_the_tasks_of_recipes_that_ship_are_right(path):
    check_task(load_recipe(path, "smoke"))


def test_a_recipe_of_ones_own_is_checked_too(tmp_path):
    text = find_recipe("fig6_gp_l").read_text()
    (tmp_path / "mine.yaml").write_text(text + "\ntask: {train_split: idd}\n")
    with pytest.raises(SftrlError, match=r"mine\.yaml: task\.train_split: .*Did you mean 'id'"):
        load_recipe(tmp_path / "mine.yaml", "smoke")
