"""Trainer modes of a recipe: verl takes every key of them, and what a scale cannot run is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.trainer_modes import gpu_split
from sftrl_ext.training.settings import TRAINERS
from tests.experiments.recipe.composing import config_of


def rl_config(tmp_path, scale, *words):
    recipe = load_recipe("fig6_gp_l", scale, list(words))
    return recipe, config_of(next(s for s in make_plan(recipe, tmp_path) if s.kind == "rl").command)


@pytest.mark.parametrize("scale", ["laptop", "node", "cluster"])
@pytest.mark.parametrize("mode", TRAINERS)
def test_verl_takes_every_key_of_every_mode(mode, scale, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe, config = rl_config(tmp_path, scale, f"scale.trainer_mode={mode}")
    assert config.trainer.v1.trainer_mode == TRAINERS[mode]
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    gpus = recipe.scale.nnodes * recipe.scale.n_gpus_per_node
    ranks = trainer.nnodes * trainer.n_gpus_per_node
    sampler = trainer.v1.sampler
    if mode == "sync":
        assert ranks == gpus and sampler.max_off_policy_strategy == "drop"  # verl's, unused
        return
    assert sampler.max_off_policy_strategy == "wait" and sampler.max_off_policy_threshold == 4
    assert not config.sftrl.rollout.seeded and rollout.calculate_log_probs
    if mode == "colocate_async":
        assert ranks == gpus and rollout.checkpoint_engine.backend == "naive"
        return
    # As verl's trainer asserts in its constructor.
    parts = trainer.v1.separate_async.parameter_sync_step
    assert config.data.train_batch_size == parts * config.actor_rollout_ref.actor.ppo_mini_batch_size
    assert parts == recipe.budget.rl.minibatches
    assert rollout.nnodes * rollout.n_gpus_per_node + ranks == gpus and ranks == gpus // 2
    assert rollout.checkpoint_engine.backend == ("tcp" if scale == "laptop" else "nccl")
    assert rollout.checkpoint_engine.custom_backend_module == "sftrl_ext.backends.hf_in_verl.weight_transfer"
    if scale == "laptop":
        assert config.ray_kwargs.ray_init.num_gpus == 2
    # Whole nodes on several.
    assert scale != "cluster" or (trainer.nnodes, rollout.nnodes, rollout.n_gpus_per_node) == (1, 1, 8)


def test_the_synchronous_command_is_as_it_was(tmp_path):
    recipe = load_recipe("fig6_gp_l", "node")
    command = next(s for s in make_plan(recipe, tmp_path) if s.kind == "rl").command
    assert not [w for w in command if w.startswith(("mode=", "sftrl.rollout_correction", "trainer.v1"))]


@pytest.mark.parametrize(("nodes", "wanted", "split"), [
    (1, None, (1, 4, 1, 4)), (1, 2, (1, 6, 1, 2)), (3, None, (2, 8, 1, 8)), (3, 16, (1, 8, 2, 8)),
])  # fmt: skip
def test_gpus_are_divided(nodes, wanted, split):
    given = [f"scale.nnodes={nodes}", f"scale.rollout_gpus={'null' if wanted is None else wanted}"]
    # A batch that every number of ranks divides.
    words = ["budget.rl.episodes=1536", "budget.rl.minibatches=2", "budget.init.batch_size=192"]
    words += ["budget.sft.batch_size=192", "scale.trainer_mode=separate_async", *given]
    found = gpu_split(load_recipe("fig6_gp_l", "node", words).scale)
    assert (found.nodes, found.gpus, found.rollout_nodes, found.rollout_gpus) == split
    assert found.total == 8 * nodes


@pytest.mark.parametrize(
    ("scale", "words", "message"),
    [
        ("gpu", ["scale.trainer_mode=separate_async"], "GPUs, and the scale has 1 .*colocate_async"),
        ("smoke", ["scale.trainer_mode=separate_async"], "the scale has 1"),
        ("node", ["scale.trainer_mode=colocated_async"], "Did you mean 'colocate_async'"),
        ("node", ["scale.rollout_gpus=4"], "scale.rollout_gpus: has no effect with scale.trainer_mode=sync"),
        ("node", ["scale.trainer_mode=separate_async", "scale.rollout_gpus=8"], "expected 1 to 7 of the"),
        ("cluster", ["scale.trainer_mode=separate_async", "scale.rollout_gpus=4"], "in multiples of 8"),
        ("node", ["budget.rl.rollout_correction=turns"], "Did you mean 'turn'"),
        (
            "node",
            ["scale.trainer_mode=colocate_async", "budget.rl.max_staleness=0"],
            "budget.rl.max_staleness: 0; .*expected 1 or more",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused(scale, words, message):
    with pytest.raises(SftrlError, match=message):
        load_recipe("fig6_gp_l", scale, words)


def test_a_correction_reaches_verl(tmp_path):
    _, config = rl_config(tmp_path, "node", "budget.rl.rollout_correction=turn")
    assert config.sftrl.rollout_correction == "turn"


@pytest.mark.parametrize(
    ("scale", "words", "ranks"),
    [
        ("laptop", [], 2),  # both ranks of two cores
        ("laptop", ["scale.trainer_mode=separate_async"], 1),
        ("smoke", [], 1),
        ("node", [], 1),
        ("node", ["scale.tensor_parallel=2"], 2),
    ],
)
def test_ranks_that_a_rollout_engine_serves(scale, words, ranks, tmp_path):
    recipe = load_recipe("fig6_gp_l", scale, words)
    [stage] = [stage for stage in make_plan(recipe, tmp_path) if stage.kind == "rl"]
    assert f"actor_rollout_ref.rollout.tensor_model_parallel_size={ranks}" in stage.command
