"""Which stages need which, and what can run at the same time, for recipes of every shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftrl_ext.experiments.plan import WITHOUT_GPU, make_plan, select_stages
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.stage_order import needed_stages, stage_groups
from sftrl_ext.runs.layout import RunLayout

LAYOUT = RunLayout(Path("/runs/x"))


def groups_of(name, scale="node", stages=None, overrides=()):
    recipe = load_recipe(name, scale, overrides)
    plan = make_plan(recipe, LAYOUT.root)
    return recipe, stage_groups(recipe, LAYOUT, plan if stages is None else select_stages(plan, stages))


def test_arms_seeds_and_rates_run_at_the_same_time():
    _, groups = groups_of("fig6_gp_l", overrides=["sweep.seeds=[0,1]", "arms.rl.lrs=[1e-6,2e-6]"])
    assert [(group.parallel, group.uses_gpu) for group in groups] == [
        (False, False),
        (False, True),
        (True, True),
        (False, True),
        (False, False),
    ]
    assert groups[0].stages == ("data", "model") and groups[1].stages == ("init",)
    assert len(groups[2].stages) == 6 and groups[3].stages == ("eval",) and groups[4].stages == ("report",)


def test_some_stages_only():
    _, groups = groups_of("fig6_gp_l", stages="rl,eval")
    assert [group.stages[0].split("-")[0] for group in groups] == ["rl"]
    assert groups[0].stages[-1] == "eval" and not groups[0].parallel


@pytest.mark.parametrize("name", [path.stem for path in distinct_recipes()])
def test_a_group_needs_only_the_groups_before_it(name):
    recipe, groups = groups_of(name)
    needed = needed_stages(recipe, LAYOUT)
    kinds = {stage.name: stage.kind for stage in make_plan(recipe, LAYOUT.root)}
    before: set[str] = set()
    for group in groups:
        for stage in group.stages:
            inside = set(group.stages) & needed[stage]
            assert needed[stage] <= before | (set() if group.parallel else inside)
            if not group.parallel:
                before.add(stage)
            assert (kinds[stage] in WITHOUT_GPU) != group.uses_gpu
        before |= set(group.stages)
    assert before == set(kinds)
