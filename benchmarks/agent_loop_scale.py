"""Speed of one agent loop worker without a model: ``python -m benchmarks.agent_loop_scale [--task gp_l]``.

The worker's own code plays thousands of episodes at once against a null engine (`benchmarks.null_engine`):
seeded lognormal latency and scripted answers, right ones, wrong ones and nonsense, so that episodes take one
to about five turns. Environment, verifier, chat template, tokenizer, image processor, rewards, and what verl
does after an episode are the real ones; TransferQueue encodes its rows as ever but sends them nowhere. The
baseline, in the same process, is verl's worker, which builds an agent loop for every episode. Both must put
the same rows. Ray, the engines' servers, and the controller and the sockets of TransferQueue are left out.

Prints one JSON object: turns per second of processor time and of the clock, the longest block of the event
loop by a heartbeat, and the shares of the parts. Exits with 1 if a bound is missed or the rows differ.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VERL_LOGGING_LEVEL", "ERROR")

import torch
from hydra import compose, initialize_config_dir
from tensordict import NonTensorData
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.tensordict_utils import get_tensordict

from benchmarks.null_engine import (
    Heartbeat,
    NullEngine,
    NullQueue,
    Part,
    Sampler,
    beating,
    scripted_answers,
    turn_seed,
)
from data_prep.general_points import rl_rows
from data_prep.sources import Source
from data_prep.virl import route_rl_rows
from data_prep.virl_sources import RouteSource, read_route_set
from sftrl_ext.envs import TASKS, make_episode
from sftrl_ext.envs.base import Episode, parse_facts
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings
from sftrl_ext.envs.general_points.prompts import expert_answer
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.episode import NavigationEpisode
from sftrl_ext.envs.virl.episode import PlaySettings as RouteSettings
from sftrl_ext.experiments.rehearsal.families import FAMILIES
from sftrl_ext.experiments.rehearsal.hub import sample_texts
from sftrl_ext.paths import configs_dir
from sftrl_ext.rollout.loop_manager import VerifierLoopWorker

AT_LEAST_TURNS_PER_S = {"gp_l": 2000.0, "virl_l": 2000.0}
"""Text turns per second of processor time."""
AT_MOST_BLOCK_MS = 50.0
NONSENSE = "I can see nothing here that I could answer with, so I go for a walk instead. " * 2
TURNS = {"gp": 5, "virl": 3}
"""Turns after which the script has wrong answers only; two more end a route."""

PARTS: tuple[Part, ...] = (
    ("queue", "benchmarks/null_engine.py", "async_kv_batch_put"),
    ("null engine", "benchmarks/null_engine.py", "generate"),
    ("heartbeat", "benchmarks/null_engine.py", "run"),
    ("verifier", "sftrl_ext/envs/", "submit"),
    ("tokenizer", "sftrl_ext/rollout/tokens.py", ""),
    ("environment", "sftrl_ext/envs/", ""),
    ("agent loop built", "hydra/", ""),
    ("rows after an episode", "/agent_loop_tq.py", "_agent_loop_postprocess"),
    ("rows after an episode", "rollout/loop_manager.py", "_agent_loop_postprocess"),
    ("start of a batch", "v1/agent_loop_tq.py", "generate_sequences"),
    ("idle", "selectors.py", "select"),
)


@dataclass(frozen=True)
class Case:
    """Rows of a task, and the toy model whose tokenizer or processor encodes them."""

    family: str
    rows: Callable[[int, Path], Sequence[dict[str, Any]]]
    limits: tuple[int, int, int]
    """Most tokens of a prompt, a response and a turn."""


def hand_rows(look: Look | None = None) -> Callable[[int, Path], Sequence[dict[str, Any]]]:
    """Rows of the card game, as text or with pictures of a look."""
    settings = PlaySettings() if look is None else PlaySettings(modality="image", look=look)

    def rows(count: int, folder: Path) -> Sequence[dict[str, Any]]:
        return [row for table in rl_rows(Source(settings=settings), count) for row in table.to_pylist()]

    return rows


def walk_rows(size: int | None = None) -> Callable[[int, Path], Sequence[dict[str, Any]]]:
    """Rows of routes through a made-up city, as text or with street views so many pixels wide."""

    def rows(count: int, folder: Path) -> Sequence[dict[str, Any]]:
        city = build_city(folder / "city", routes=60 if size is None else 8, pictures=size is not None)
        settings = (
            RouteSettings()
            if size is None
            else RouteSettings(modality="image", street_views=str(city / "street_views"), image_size=size)
        )
        source = RouteSource([read_route_set(city)], settings=settings)
        return [row for table in route_rl_rows(source, count) for row in table.to_pylist()]

    return rows


CASES: dict[str, Case] = {
    "gp_l": Case("llama3", hand_rows(), (1024, 1536, 160)),
    "virl_l": Case("llama3", walk_rows(), (2048, 768, 160)),
    "gp_vl": Case("qwen2_5_vl", hand_rows(Look(336, 336)), (1024, 1536, 160)),
    "gp_vl_1200": Case("qwen2_5_vl", hand_rows(Look()), (2560, 1536, 160)),
    "virl_vl": Case("qwen2_5_vl", walk_rows(448), (2560, 768, 160)),
}


def right_answer(episode: Episode) -> str:
    """A right answer at the current prompt, or a wrong formula where a hand has no solution."""
    if isinstance(episode, NavigationEpisode):
        return episode.expert_answer()
    game = cast(GeneralPointsEpisode, episode)
    formulas = solve(game.numbers, game.target, limit=1) or [str(game.numbers[0])]
    return expert_answer(game.template, game.cards, game.numbers, formulas[0], game.target)


def wrong_answers(episode: Episode) -> list[str]:
    """Wrong formulas or actions, and nonsense."""
    if isinstance(episode, NavigationEpisode):
        return [*TASKS["virl"].wrong_answers[1:], NONSENSE]
    game = cast(GeneralPointsEpisode, episode)
    formula = "+".join(map(str, game.numbers)) + "+0"
    wrong = expert_answer(game.template, game.cards, game.numbers, formula, game.target)
    return [wrong, *TASKS["general_points"].wrong_answers[1:], NONSENSE]


class Bench:
    """Rows, answers and configuration of one case.

    Args:
        name: Name of the case.
        episodes: Episodes in flight.
        group: Episodes of a prompt.
        folder: Folder for the toy model and what the rows are drawn from.
    """

    def __init__(self, name: str, episodes: int, group: int, folder: Path) -> None:
        case = CASES[name]
        FAMILIES[case.family](folder / "model", sample_texts(20))
        prompt, response, turn = case.limits
        overrides = [
            "backend=cpu",
            f"actor_rollout_ref.model.path={folder / 'model'}",
            f"actor_rollout_ref.rollout.n={group}",
            f"data.max_prompt_length={prompt}",
            f"data.max_response_length={response}",
            f"sftrl.rollout.max_turn_tokens={turn}",
            "sftrl.rollout.seeded=true",
        ]
        with initialize_config_dir(str(configs_dir()), version_base=None):
            self.config = compose("ppo", overrides)
        self.rows = list(islice(case.rows(-(-episodes // group), folder), -(-episodes // group)))
        self.group = group

    def worker(self, kind: type[Any], engine: NullEngine) -> Any:
        """A worker without Ray."""
        return kind(self.config, engine, None, None)

    def batch(self) -> Any:
        """The rows as the trainer sends them."""
        columns: dict[str, Any] = {key: [row[key] for row in self.rows] for key in self.rows[0]}
        columns["raw_prompt"] = columns["prompt"]
        columns["index"] = [row["extra_info"]["index"] for row in self.rows]
        columns["uid"] = [f"uid{number}" for number in range(len(self.rows))]
        columns["tools_kwargs"] = columns["interaction_kwargs"] = [{}] * len(self.rows)
        columns["dummy_tensor"] = torch.zeros(len(self.rows), 1, dtype=torch.uint8)
        batch = get_tensordict(columns)
        batch["global_steps"] = NonTensorData(1)
        return batch

    def answers(self, tokenizer: Any) -> dict[int, list[int]]:
        """Tokens of every answer by the seed of its turn."""
        answers: dict[int, list[int]] = {}
        cache: dict[str, list[int]] = {}
        rng, seed = random.Random(0), getattr(self.config.actor_rollout_ref.rollout, "seed", 0)
        for number, row in enumerate(self.rows):
            facts = parse_facts(row["extra_info"]["facts"], "row")
            for session in range(self.group):
                episode = make_episode(facts)
                turns = TURNS["virl" if isinstance(episode, NavigationEpisode) else "gp"]
                script = scripted_answers(episode, right_answer, wrong_answers(episode), turns, rng)
                for turn, text in enumerate(script):
                    if text not in cache:
                        ids = tokenizer.encode(text, add_special_tokens=False)
                        cache[text] = [*ids, tokenizer.eos_token_id]
                    answers[turn_seed(seed, f"uid{number}", session, turn)] = cache[text]
        return answers


async def play(worker: Any, batch: Any, heart: Heartbeat) -> None:
    """Play all episodes of a batch, with a heartbeat beside them."""
    with beating(heart):
        await worker.generate_sequences(batch)
        while worker.background_tasks:
            await asyncio.wait(set(worker.background_tasks))
        await asyncio.sleep(heart.every_s * 2)


def measure(bench: Bench, kind: type[Any], median_s: float, lines: int) -> dict[str, Any]:
    """Play a case with one kind of worker."""
    queue, heart, sampler = NullQueue(), Heartbeat(), Sampler(PARTS)
    agent_loop_tq.tq = queue
    engine = NullEngine({}, median_s)
    worker = bench.worker(kind, engine)
    engine.answers = bench.answers(worker.tokenizer)
    batch = bench.batch()
    gc.collect()
    wall, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    with sampler:
        asyncio.run(play(worker, batch, heart))
    thread = time.thread_time() - thread
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    errors = queue.errors()
    if errors or any(tag["status"] == "failure" for tag in queue.tags.values()):
        raise SystemExit(f"{len(errors)} rows of episodes that failed: {errors[:1]}")
    return {
        "turns": engine.turns,
        "rows": len(queue.rows),
        "most_in_flight": engine.most_in_flight,
        "turns_per_cpu_s": round(engine.turns / cpu),
        "turns_per_s": round(engine.turns / wall),
        "cpu_s": round(cpu, 2),
        "loop_thread_cpu_s": round(thread, 2),
        "wall_s": round(wall, 2),
        "block": heart.report(),
        "shares": sampler.shares(),
        **({"lines": sampler.lines.most_common(lines)} if lines else {}),
        "put_mb": round(queue.bytes / 2**20, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "digest": queue.digest(),
    }


def misses(name: str, result: Mapping[str, Any]) -> list[str]:
    """Bounds that a measurement misses."""
    floor = AT_LEAST_TURNS_PER_S.get(name, 0.0)
    missed = []
    if result["turns_per_cpu_s"] < floor:
        missed.append(f"{name}: {result['turns_per_cpu_s']} turns/s, expected at least {floor:.0f}")
    if result["block"]["longest_ms"] > AT_MOST_BLOCK_MS:
        missed.append(
            f"{name}: a block of {result['block']['longest_ms']} ms, expected at most {AT_MOST_BLOCK_MS:.0f}"
        )
    return missed


def main() -> int:
    """Measure, print, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=CASES, default="gp_l")
    parser.add_argument("--episodes", type=int, default=2048, help="episodes in flight")
    parser.add_argument("--group", type=int, default=4, help="episodes of a prompt")
    parser.add_argument("--median-s", type=float, default=0.5, help="median latency of the engine")
    parser.add_argument("--lines", type=int, default=0, help="functions with the most samples to print")
    parser.add_argument("--no-baseline", action="store_true", help="leave out verl's own worker")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(args.task, args.episodes, args.group, Path(name))
        results = {"worker": measure(bench, VerifierLoopWorker, args.median_s, args.lines)}
        if not args.no_baseline:
            stock = VerifierLoopWorker.__mro__[1]
            results["verl's worker"] = measure(bench, stock, args.median_s, args.lines)
    missed = misses(args.task, results["worker"])
    if len({result["digest"] for result in results.values()}) > 1:
        missed.append(f"{args.task}: the two workers put different rows")
    print(json.dumps({"task": args.task, "group": args.group, **results, "missed": missed}, indent=1))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
