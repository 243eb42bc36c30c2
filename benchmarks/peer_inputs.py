"""Model, prompts and processes that both sides of a comparison get, for `benchmarks.peers`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.general_points import rl_rows, sft_rows
from data_prep.sources import Source
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.schema import Recipe

SINGLE_TURN = (
    "task.max_attempts=1",
    "budget.rl.algorithm=grpo_turn",
    "budget.rl.max_response_length=48",
    "budget.rl.micro_batch_size=64",
)
"""Overrides of the card game's recipe that make its RL arm a GRPO of one turn an episode."""


def laptop_recipe() -> Recipe:
    """The card game in words at scale laptop, with one attempt a hand."""
    return load_recipe("fig6_gp_l", "laptop", SINGLE_TURN)


def hands(count: int, seed: int) -> list[tuple[str, list[dict[str, str]]]]:
    """Facts and prompt of some hands, as the data stage writes them."""
    source = Source("id", seed=seed, settings=PlaySettings(max_attempts=1, template="compact"))
    rows = [row for table in rl_rows(source, count) for row in table.to_pylist()]
    return [(row["extra_info"]["facts"], row["prompt"]) for row in rows]


def build_start(folder: Path) -> None:
    """Write the laptop's model with random weights, and its tokenizer."""
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama

    source = Source("id", settings=PlaySettings(template="compact"))
    rows = [row for table in sft_rows(source, 2000) for row in table.to_pylist()]
    texts = [message["content"] for row in rows for message in row["messages"]]
    build_tiny_llama(folder, texts, laptop_recipe().model, seed=0)


def measure_apart(module: str, settings: Mapping[str, Any]) -> Any:
    """Run a module of this folder in a process of its own, of so many threads, and read its JSON.

    Raises:
        SystemExit: with the end of its messages, if it failed.
    """
    threads = str(settings.get("threads", 1))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(settings)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} {json.dumps(settings)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer_settings(measure: Callable[[Mapping[str, Any]], Any]) -> None:
    """Body of a module that `measure_apart` runs."""
    print(json.dumps(measure(json.loads(sys.argv[1]))))
