"""A command goes over its rows often enough for all its steps, as verl's loaders and loops count."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.verl_commands import ppo_command, sft_command

HERE = Path("run")


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("fig6_gp_l", "smoke")


def value(command, key):
    return int(next(arg.partition("=")[2] for arg in command[0] if arg.startswith(f"{key}=")))


def rl_command(recipe, **keys):
    rl = replace(recipe.budget.rl, minibatches=1, **keys)
    return ppo_command(recipe, rl, HERE, HERE, [], HERE, "rl", 0)


def taught_command(recipe, **keys):
    return sft_command(recipe, replace(recipe.budget.sft, **keys), HERE, HERE, HERE, "sft", 0)


def batches_per_epoch(rows, batch):
    loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    return sum(1 for _ in loader(range(rows), batch_size=batch, drop_last=True, collate_fn=len))


def updates_made(per_epoch, epochs, total):
    """verl's loop of updates (`PPOTrainer.fit`): it ends with the passes, or with the updates."""
    step, epoch = 1, 0
    while epoch < epochs and step <= total:
        step += 1
        epoch = (step - 1) // per_epoch
    return step - 1


GRID = [(3072, 80, 115), *itertools.product((64, 100, 127), (4, 16, 36, 64), (1, 2, 7, 23))]


def test_rl_makes_every_update(recipe):
    for rows, prompts, updates in GRID:
        command = rl_command(recipe, rows=rows, episodes=prompts, updates=updates)
        assert value(command, "data.train_batch_size") == prompts
        epochs, per_epoch = value(command, "trainer.total_epochs"), batches_per_epoch(rows, prompts)
        assert updates_made(per_epoch, epochs, updates) == updates, (rows, prompts, updates)
        assert epochs == 1 or updates_made(per_epoch, epochs - 1, updates) < updates


def test_sft_makes_every_step(recipe):
    for rows, batch, steps in GRID:
        command = taught_command(recipe, rows=rows, batch_size=batch, steps=steps)
        epochs, per_epoch = value(command, "trainer.total_epochs"), batches_per_epoch(rows, batch)
        assert (epochs - 1) * per_epoch < steps <= epochs * per_epoch, (rows, batch, steps)


def test_rows_that_fill_no_batch_are_refused(recipe):
    with pytest.raises(SftrlError, match=r"rows: 16, fewer than one batch \(prompts of an update: 32\)"):
        rl_command(recipe, rows=16)
    with pytest.raises(SftrlError, match=r"rows: 16, fewer than one batch \(batch_size: 32\)"):
        taught_command(recipe, rows=16)
