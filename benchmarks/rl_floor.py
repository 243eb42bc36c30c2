"""Seconds of the laptop's RL update: verl's beside the same update as a plain loop.

    python -m benchmarks.rl_floor <run> [--updates 4] [--skip-verl]

The run is a finished one of `fig6_gp_l` at `laptop`: its init and its rows are enough. The plain loop plays
as many episodes with the same engine, gives them the same credit and makes the same optimizer step, in one
process, or in two that average their gradients: no Ray, no queue, no FSDP, no pass that the algorithm does
not need (with one epoch of one minibatch the old log-probabilities are the sampler's). Then verl runs the
recipe's own command for as many updates, once with the log-probability passes in each of them. The first
update of each is left out. Run it on free cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from benchmarks.learner import Learner, SampledRows, pad
from benchmarks.processes import spawn
from benchmarks.step_times import phases, timed_steps
from sftrl_ext.backends.hf.batcher import Batcher
from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import parse_facts
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.rehearsal.compare import compose_config
from sftrl_ext.reward_fns import turn_reward
from sftrl_ext.rollout.player import Generation, Limits, PlayedEpisode, play
from sftrl_ext.rollout.tokens import load_chat_tokens
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.training import credit


@dataclass(frozen=True)
class Update:
    """Sizes of one update, of all ranks together."""

    model: Path
    rows: list[dict[str, Any]]
    prompts: int
    group: int
    updates: int
    lr: float
    gamma: float
    limits: Limits


def update_of(recipe: Recipe, layout: RunLayout, updates: int) -> Update:
    """The RL update of a recipe's run, from its stored recipe, rows and init.

    Raises:
        SystemExit: if the run has no RL stage, or its start has not been trained.
    """
    stages = [stage for stage in make_plan(recipe, layout.root) if stage.kind == "rl"]
    if not stages:
        raise SystemExit(f"{layout.root}: no RL stage in its recipe.")
    command = stages[0].command
    at = command.index("--config-name") + 1
    config = compose_config(command[at], command[at + 1 :])
    data, actor, sftrl = config["data"], config["actor_rollout_ref"], config["sftrl"]
    model = Path(actor["model"]["path"])
    if not model.is_dir():
        raise SystemExit(f"{model}: no such folder; the run's init has not been trained.")
    return Update(
        model,
        pq.read_table(data["train_files"]).to_pylist(),
        prompts=data["train_batch_size"],
        group=actor["rollout"]["n"],
        updates=updates,
        lr=actor["actor"]["optim"]["lr"],
        gamma=sftrl["credit"]["gamma"],
        limits=Limits(
            data["max_prompt_length"], data["max_response_length"], sftrl["rollout"]["max_turn_tokens"]
        ),
    )


class PlainLoop:
    """One rank of the plain loop: plays its share of the prompts, and trains on those episodes."""

    def __init__(self, update: Update, rank: int, ranks: int) -> None:
        self.update, self.rank, self.ranks = update, rank, ranks
        self.learner = Learner(update.model, update.lr, ranks)
        self.engine = Engine.from_folder(update.model, max_rows=256, seed=rank)
        self.chat = load_chat_tokens(update.model)

    def run(self) -> list[dict[str, float]]:
        """Seconds of every update, and of its phases; tokens and solved share."""
        return [self.step(number) for number in range(self.update.updates)]

    def step(self, number: int) -> dict[str, float]:
        """One update: episodes, credit, one optimizer step."""
        self._barrier()
        begin = time.perf_counter()
        self.engine.copy_weights(self.learner.weights())
        episodes = asyncio.run(self.play(number))
        self._barrier()
        played = time.perf_counter()
        self.train(episodes)
        self._barrier()
        end = time.perf_counter()
        return {
            "step_s": end - begin,
            "gen_s": played - begin,
            "update_actor_s": end - played,
            "solved": sum(episode.solved for episode in episodes) / len(episodes),
            "tokens": float(
                sum(len(s.prompt_ids) + len(s.response_ids) for e in episodes for s in e.segments)
            ),
        }

    async def play(self, number: int) -> list[PlayedEpisode]:
        """Play this rank's episodes of an update, those of one prompt next to each other."""
        update, batcher = self.update, Batcher(self.engine)
        share = update.prompts // self.ranks
        first = (number * update.prompts + self.rank * share) % len(update.rows)

        async def episode(index: int, sample: int) -> PlayedEpisode:
            facts = parse_facts(update.rows[index]["extra_info"]["facts"], f"row {index}")
            source, turn = str(update.rows[index]["data_source"]), 0

            async def generate(ids: list[int], params: dict[str, Any], images: Sequence[Any]) -> Generation:
                nonlocal turn
                seed = zlib.crc32(f"{number}/{index}/{sample}/{turn}".encode())
                turn += 1
                result = await batcher.generate(Request(ids, Sampling(seed=seed, **params)))
                return Generation(result.token_ids, result.log_probs)

            return await play(
                make_episode(facts),
                generate,
                self.chat,
                update.limits,
                turn_reward=lambda _, step: turn_reward(step, facts, source, "outcome"),
            )

        indices = [(first + offset) % len(update.rows) for offset in range(share)]
        try:
            return await asyncio.gather(
                *(episode(i, sample) for i in indices for sample in range(update.group))
            )
        finally:
            batcher.close()

    def train(self, episodes: list[PlayedEpisode]) -> None:
        """RLOO over turns, one clipped ratio a turn, in one optimizer step."""
        segments = [
            (number, part, s) for number, e in enumerate(episodes) for part, s in enumerate(e.segments)
        ]
        turn_ids = pad([s.turn_ids for _, _, s in segments])
        rewards = pad([s.token_rewards() for _, _, s in segments]).double()
        turns = credit.collect_turns(
            turn_ids, rewards, [e for e, _, _ in segments], [p for _, p, _ in segments]
        )
        group = torch.arange(len(episodes)) // self.update.group
        raw = credit.leave_one_out_advantages(turns.rewards, turns.alive, group, self.update.gamma)
        rows = SampledRows(
            [s.prompt_ids for _, _, s in segments],
            [s.response_ids for _, _, s in segments],
            pad([s.logprobs or [] for _, _, s in segments]).float(),
            turn_ids,
            turns.to_tokens(raw).float(),
        )
        self.learner.update(rows, float(turns.alive.sum()))

    def _barrier(self) -> None:
        if self.ranks > 1:
            dist.barrier()


def plain_loop(rank: int, ranks: int, update: Update) -> list[dict[str, float]]:
    """Measurements of every update of one rank."""
    return PlainLoop(update, rank, ranks).run()


def plain_seconds(update: Update, ranks: int, threads: int) -> dict[str, float]:
    """Medians of the plain loop's phases by so many processes of so many threads."""
    steps = spawn(plain_loop, ranks, threads, update)[0][1:]
    return {key: round(statistics.median(step[key] for step in steps), 3) for key in steps[0]}


def verl_seconds(recipe: Recipe, layout: RunLayout, updates: int, overrides: list[str]) -> dict[str, float]:
    """Medians of the phases of verl's updates, by the recipe's own command and further overrides."""
    [stage] = [stage for stage in make_plan(recipe, layout.root) if stage.kind == "rl"][:1]
    folder = Path(tempfile.mkdtemp())
    output = str(layout.checkpoints(stage.name).parent)
    command = [word.replace(output, str(folder)) for word in stage.command]
    command += [f"trainer.total_training_steps={updates}", "trainer.save_freq=-1", *overrides]
    env = {**os.environ, **stage.env, "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-1000:])
        steps = timed_steps(folder / "metrics.jsonl", 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {name: round(value, 3) for name, value in phases(steps).items()}


def main() -> None:
    """Print the seconds of an update: plain, by one and by two processes, and verl's; and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--skip-verl", action="store_true")
    options = parser.parse_args()
    layout = RunLayout(options.run.resolve())
    recipe = from_yaml(layout.recipe)
    update = update_of(recipe, layout, options.updates)
    cores = os.cpu_count() or 1
    shown: dict[str, Any] = {"episodes": update.prompts * update.group, "cores": cores}
    shown["plain, one core"] = plain_seconds(update, 1, 1)
    shown["plain, one process of two threads"] = plain_seconds(update, 1, 2)
    shown["plain, two processes"] = plain_seconds(update, 2, 1)
    floor = min(run["step_s"] for run in shown.values() if isinstance(run, dict))
    if not options.skip_verl:
        every = verl_seconds(recipe, layout, options.updates, ["sftrl.check_every=1"])
        shown["verl, all log-probabilities in every update"] = every
        shown["verl"] = verl_seconds(recipe, layout, options.updates, [])
        shown["verl over the floor"] = round(shown["verl"]["step_s"] / floor, 2)
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
