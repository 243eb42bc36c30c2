"""The distance between a scale and its rehearsal is listed, and does not grow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.rehearsal.compare import differences
from sftrl_ext.experiments.rehearsal.divide import rehearsed
from sftrl_ext.experiments.rehearsal.replaced import ENVIRONMENT, REPLACED, markdown_table

RUN = Path("/runs/x")
NAMES = [path.stem for path in distinct_recipes()]
NOT_SIZES = {
    "trainer.device",
    "ray_kwargs.ray_init.num_cpus",
    "ray_kwargs.ray_init.num_gpus",
    "engine.use_torch_compile",
    "actor_rollout_ref.rollout.enforce_eager",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.free_cache_engine",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.*",
    "actor_rollout_ref.rollout.agent.num_workers",
    "reward.num_workers",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    "model.path",
    "model.package",
}
"""What a rehearsal replaces beyond sizes and the number of ranks. A node runs these otherwise: add none."""


def test_the_list_of_replaced_keys_does_not_grow() -> None:
    counted = ("sizes", "ranks", "rates")
    found = {key for entry in REPLACED if entry.group not in counted for key in entry.keys}
    found |= {key for e in REPLACED if e.group == "ranks" for key in e.keys if key in NOT_SIZES}
    assert found == NOT_SIZES
    assert len([key for entry in REPLACED for key in entry.keys]) <= 46
    assert len(ENVIRONMENT) == 5
    assert all(entry.reason for entry in REPLACED)


@pytest.mark.parametrize("scale", ["gpu", "node", "cluster"])
def test_every_difference_of_the_first_recipe_is_listed(scale: str) -> None:
    real = load_recipe("fig6_gp_l", scale)
    found = {one.key: one for one in differences(real, rehearsed(real), RUN)}
    assert {found["trainer.device"].real, found["trainer.device"].rehearsed} == {"cuda", "cpu"}
    for key in ("backend", "algorithm.adv_estimator", "actor_rollout_ref.rollout.name", "scale.engine"):
        assert key not in found
    of_sizes = ("total_training_steps", "num_cycles", "lr_warmup_steps")
    for part in ("optim", "sftrl.credit", "cliprange", "policy_loss"):
        of_verl = [key for key in found if not key.startswith("budget.")]
        assert not [key for key in of_verl if part in key and not key.endswith(of_sizes)]


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_difference_of_every_recipe_is_listed(name: str) -> None:
    for scale in ("gpu", "node", "cluster"):
        real = load_recipe(name, scale)
        assert differences(real, rehearsed(real), RUN)


def test_one_learning_rate_stands_for_all_of_an_arm() -> None:
    real = load_recipe("fig9_rl_without_init", "node")
    small = rehearsed(real)
    assert small.arms["rl"].lr_times == [1]
    replaced = {one.key for one in differences(real, small, RUN) if one.entry.group == "rates"}
    assert "arms.rl.lr_times" in replaced
    assert [key for key in replaced if key.endswith("actor.optim.lr")]
    # A stage of another rate that differs in more than its rate is still refused.
    arms = {"rl": replace(small.arms["rl"], max_attempts=2)}
    with pytest.raises(SftrlError, match="without a reason"):
        differences(real, replace(small, arms=arms), RUN)


def test_a_stage_that_nothing_stands_for_is_refused() -> None:
    real = load_recipe("fig6_gp_l", "node")
    small = rehearsed(real)
    with pytest.raises(SftrlError, match="found the stages"):
        differences(real, replace(small, arms={"sft": small.arms["sft"]}), RUN)


def test_a_key_replaced_without_a_reason_is_refused() -> None:
    real = load_recipe("fig6_gp_l", "node")
    small = rehearsed(real)
    for change in (
        {"verl_ppo": [*small.verl_ppo, "critic.cliprange_value=3.0"]},
        {"verl_sft": [*small.verl_sft, "optim.weight_decay=0.5"]},
    ):
        with pytest.raises(SftrlError, match="without a reason"):
            differences(real, replace(small, **change), RUN)


def test_two_ranks_stand_for_several_gpus_and_one_for_one() -> None:
    scales = {name: rehearsed(load_recipe("fig6_gp_l", name)).scale for name in ("gpu", "node", "cluster")}
    assert {name: (s.nnodes, s.n_gpus_per_node) for name, s in scales.items()} == {
        "gpu": (1, 1),
        "node": (1, 2),
        "cluster": (2, 1),
    }
    assert {s.backend for s in scales.values()} == {"gpu"}


def test_the_documentation_holds_the_list() -> None:
    text = (Path(__file__).parents[3] / "docs" / "rehearsal.md").read_text(encoding="utf-8")
    table = text.partition("rehearsal.replaced -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == markdown_table()
