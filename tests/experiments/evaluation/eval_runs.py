"""Runs of tiny models that are there to be evaluated, by one engine or by workers."""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest
from rich.console import Console

from sftrl_ext.envs.task import make_episode
from sftrl_ext.experiments.evaluation.engines import open_engine
from sftrl_ext.experiments.evaluation.evaluate import evaluate_run
from sftrl_ext.experiments.evaluation.evaluate_parallel import evaluate_in_parallel
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.files import read_jsonl
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.state import RunState, StageState

FACTS = {"task": "general_points", "template": "compact", "max_attempts": 3}
HANDS = ["6 4 A A", "2 3 4 5", "K Q 2 3", "7 7 3 3", "5 5 5 A", "8 3 8 3"]
PATH = {"sft": "global_step_{}/huggingface", "rl": "global_step_{}/actor/huggingface"}


def sets_of(*splits, suit="", **facts):
    return [
        EvalSet(
            split,
            f"gp/{split}",
            [{**FACTS, **facts, "cards": [card + suit for card in hand.split()]} for hand in HANDS],
        )
        for split in splits
    ]


def make_run(root, build, sets, config):
    """An init that starts from an unevaluated model, an SFT arm of two checkpoints, and RL from its first."""
    layout = RunLayout(root)
    facts = [facts for chosen in sets for facts in chosen.facts]
    texts = [m["content"].replace("<image>", "") for f in facts for m in make_episode(f).messages()]
    build(layout.start_model, texts * 9, config, seed=0)
    stages = [
        StageState("model", "model"),
        StageState("init", "sft", "init", 0, 1e-4, start="model@0"),
        StageState("sft", "sft", "sft", 0, 1e-4, start="init@1"),
        StageState("rl", "rl", "rl", 0, 1e-4, start="sft@1"),
    ]
    for stage, steps, seed in (("init", [1], 10), ("sft", [1, 2], 20), ("rl", [1], 30)):
        for step in steps:
            folder = layout.checkpoints(stage) / PATH[stages[-1].kind if stage == "rl" else "sft"].format(
                step
            )
            build(folder, texts * 9, config, seed=seed + step)
        (layout.checkpoints(stage) / LATEST).write_text(str(steps[-1]))
    return layout, RunState("r", "smoke", stages=stages)


def recipe_of(name, sets):
    recipe = load_recipe(
        name,
        "smoke",
        ["budget.rl.max_turn_tokens=12", "budget.rl.max_prompt_length=512", "scale.eval_workers=2",
         "budget.rl.max_response_length=200", "budget.eval.kl_episodes=4", "budget.eval.sample_episodes=3"],
    )  # fmt: skip
    recipe.task.eval_splits = [chosen.split for chosen in sets]
    recipe.task.train_split = sets[0].split
    return recipe


def by_one_engine(recipe, layout, state, sets):
    engine = open_engine("hf", layout.start_model, dtype="float32", rows=recipe.budget.eval.batch_size)
    evaluate_run(recipe, state, layout, sets, engine, ProgressFile())
    return stored(layout)


def by_workers(recipe, layout, state, sets, say=lambda text: None):
    evaluate_in_parallel(recipe, state, layout, sets, Console(quiet=True), say)
    return stored(layout)


def stored(layout):
    """(records, episodes) as they lie there, wall times and the last digits of a divergence aside."""
    records = []
    for record in read_jsonl(layout.records):
        record.pop("wall_s")
        divergence = record.get("divergence", {})
        divergence.pop("wall_s", None)
        for direction in ("forward", "reverse"):
            for name in ("nats", "se"):
                if direction in divergence:
                    divergence[direction][name] = pytest.approx(divergence[direction][name], rel=1e-4)
        records.append(record)
    return records, list(read_jsonl(layout.episodes))


def elsewhere(layout, path):
    """The run in another folder, without its evaluation."""
    shutil.copytree(layout.root, path, ignore=shutil.ignore_patterns("eval"))
    return RunLayout(path)


class Killer:
    """Kills the process of the worker that starts the unit of a given number."""

    def __init__(self, at):
        self.at, self.begun, self.lines = at, 0, []

    def __call__(self, line):
        self.lines.append(line)
        begins = "instances" in line and "failed" not in line
        self.begun += begins
        if begins and self.begun == self.at:
            os.kill(int(re.search(r"pid (\d+)", line).group(1)), signal.SIGKILL)
