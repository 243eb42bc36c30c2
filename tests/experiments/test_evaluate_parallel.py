"""Evaluation by workers of a real Ray: the records of one engine, with a worker killed on the way too."""

import json
import os
import re
import shutil
import signal

import pytest

pytest.importorskip("verl")

from rich.console import Console
from rich.progress import Progress

from sftrl_ext.experiments.checkpoints import LATEST
from sftrl_ext.experiments.evaluate import EvalSet, evaluate_run
from sftrl_ext.experiments.evaluate_parallel import evaluate_in_parallel
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import ModelConfig, VisionConfig
from sftrl_ext.experiments.recipe_files import load_recipe
from sftrl_ext.experiments.stages import open_engine
from sftrl_ext.experiments.state import RunState, StageState
from sftrl_ext.files import read_jsonl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FACTS = {"task": "general_points", "template": "compact", "max_attempts": 3}
HANDS = ["6 4 A A", "2 3 4 5", "K Q 2 3", "7 7 3 3", "5 5 5 A", "8 3 8 3"]
PATH = {"sft": "global_step_{}/huggingface", "rl": "global_step_{}/actor/huggingface"}


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory):
    """One Ray for all tests of the file."""
    import ray

    os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
    ray.init(
        address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=100_000_000,
        log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()


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
    from sftrl_ext.envs.base import make_episode

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
    with Progress(disable=True) as progress:
        evaluate_run(recipe, state, layout, sets, engine, progress)
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


def test_two_workers_give_the_records_of_one_engine_though_one_is_killed(tmp_path, local_ray):
    from sftrl_ext.experiments.tiny_model import build_tiny_llama

    sets = sets_of("id", "rule_ood")
    config = ModelConfig(name="t", hidden_size=32, layers=1, heads=1, max_positions=1024)
    layout, state = make_run(tmp_path / "one", build_tiny_llama, sets, config)
    recipe = recipe_of("fig6_gp_l", sets)
    other = elsewhere(layout, tmp_path / "two")
    expected = by_one_engine(recipe, layout, state, sets)
    assert len(expected[0]) == 8 and len(expected[1]) == 8 * 3
    assert sum("forward" in record.get("divergence", {}) for record in expected[0]) == 4
    # The checkpoints differ, so a record of the wrong one would be seen.
    assert (
        len({json.dumps(record["outcomes"]) + str(record["generated_tokens"]) for record in expected[0]}) > 4
    )

    killer = Killer(at=3)
    assert by_workers(recipe, other, state, sets, killer) == expected
    failures = [line for line in killer.lines if "failed at" in line]
    assert len(failures) == 1 and re.search(r"worker \d \(pid .*\) failed at \S+@\d on \w+", failures[0])
    of_workers = {re.match(r"worker (\d)", line).group(1) for line in killer.lines if "instances" in line}
    assert of_workers == {"0", "1", "2"}

    # Killed after some records, the last one torn, some of them without their divergence: goes on.
    lines = other.records.read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    for record in records[2:]:
        record.pop("divergence", None)
    text = "".join(json.dumps(record) + "\n" for record in records[:5])
    other.records.write_text(text + lines[6][:40])
    again = []
    assert by_workers(recipe, other, state, sets, again.append) == expected
    assert sum("instances" in line for line in again) == 3
    assert sum("divergence of" in line for line in again) == 3
    # Nothing is left to do: no worker starts.
    done = []
    assert by_workers(recipe, other, state, sets, done.append) == expected and done == []


def test_pictures_are_drawn_again_for_the_divergence(tmp_path, local_ray):
    from sftrl_ext.experiments.tiny_vision import build_tiny_qwen_vl

    sets = sets_of("id", suit="S", modality="image", look={"width": 112, "height": 56})
    vision = VisionConfig(hidden_size=32, layers=1, heads=2)
    config = ModelConfig(name="t", hidden_size=32, layers=1, heads=2, vision=vision)
    layout, state = make_run(tmp_path / "one", build_tiny_qwen_vl, sets, config)
    recipe = recipe_of("fig7_gp_vl", sets)
    other = elsewhere(layout, tmp_path / "two")
    expected = by_one_engine(recipe, layout, state, sets)
    assert all("recognized_first" in record and "forward" in record["divergence"] for record in expected[0])
    assert by_workers(recipe, other, state, sets) == expected
