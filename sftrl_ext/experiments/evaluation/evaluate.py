"""Evaluate every saved checkpoint of a run on every split, with one engine that is started once."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import sftrl_ext.envs  # noqa: F401  (registers the tasks)
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.experiments.evaluation.divergence import DivergenceMeter, measured_split
from sftrl_ext.experiments.evaluation.engines import EvalEngine
from sftrl_ext.experiments.evaluation.episode_records import stored_episode
from sftrl_ext.experiments.evaluation.targets import EvalSet, Target, start_of, targets_of
from sftrl_ext.experiments.recipe.arms import gives_init, starts_from_base
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.rollout.player import Generation, Limits, PlayedEpisode, play
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.records import (
    CLAIMS,
    CityCount,
    EvalRecord,
    SampleEpisode,
    append_record,
    prepare_to_append,
    read_eval_records,
)
from sftrl_ext.runs.state import RunState

if TYPE_CHECKING:
    from PIL.Image import Image


T = TypeVar("T")

STEP_COUNTS = ("correct_actions", "responses", "recognized_responses")
"""Numbers of an episode whose sums give a measure per response: per-step accuracy is the first over the
second. A route is one episode of many such steps, whose own result is in ``solved``."""


@dataclass(frozen=True)
class EvalPlay:
    """Sampling and token budget of an evaluation.

    Attributes:
        limits: Token budget of an episode.
        temperature: Sampling temperature; 0 takes the most probable token.
        seed: With the split, the instance and the turn it seeds every response, so that a repeated
            evaluation gives the same episodes.
        top_p: Tokens are drawn from the fewest whose probabilities sum to at least this.
        top_k: Tokens are drawn from so many of the most probable; -1: from all.
        samples: Episodes of each instance; their responses have seeds of their own.
    """

    limits: Limits
    temperature: float
    seed: int
    top_p: float = 1.0
    top_k: int = -1
    samples: int = 1

    @classmethod
    def of(cls, recipe: Recipe) -> EvalPlay:
        """As the recipe says; the token budget is the one of training, but for the length of an answer."""
        rl, evaluation = recipe.budget.rl, recipe.budget.eval
        turn = rl.max_turn_tokens if evaluation.max_turn_tokens is None else evaluation.max_turn_tokens
        limits = Limits(
            prompt=rl.max_prompt_length,
            response=rl.max_response_length,
            turn=turn,
            prompts=rl.max_prompts,
        )
        return cls(
            limits, evaluation.temperature, evaluation.seed, evaluation.top_p, samples=evaluation.samples
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling parameters by their names in engines; cuts that keep everything are left out."""
        return sampling_of(self.temperature, self.top_p, self.top_k)


def sampling_of(temperature: float, top_p: float, top_k: int) -> dict[str, Any]:
    """Sampling parameters by their names in engines; cuts that keep every token are left out."""
    cuts: dict[str, Any] = {}
    if top_p < 1:
        cuts["top_p"] = top_p
    if top_k > 0:
        cuts["top_k"] = top_k
    return {"temperature": temperature, **cuts}


def evaluate_run(
    recipe: Recipe,
    state: RunState,
    layout: RunLayout,
    sets: Sequence[EvalSet],
    engine: EvalEngine,
    progress: ProgressFile,
) -> None:
    """Evaluate what is not in the records yet; a killed evaluation goes on with the next checkpoint."""
    prepare_to_append(layout)
    done = read_eval_records(layout)
    targets = targets_of(state, layout, starts_from_base(recipe), gives_init(recipe))
    todo = [
        (target, [s for s in sets if (target.stage, target.step, s.split) not in done]) for target in targets
    ]
    todo = [(target, missing) for target, missing in todo if missing]
    settings = EvalPlay.of(recipe)
    every = settings.samples * len(targets) * sum(len(s.facts) for s in sets)
    left = settings.samples * sum(len(s.facts) for _, missing in todo for s in missing)
    progress.count(every, "episodes", every - left)
    meter = _meter(settings, recipe, state, layout, sets, engine)
    asyncio.run(_evaluate_all(recipe, settings, todo, engine, meter, layout, progress))


async def _evaluate_all(
    recipe: Recipe,
    settings: EvalPlay,
    todo: Sequence[tuple[Target, Sequence[EvalSet]]],
    engine: EvalEngine,
    meter: DivergenceMeter | None,
    layout: RunLayout,
    progress: ProgressFile,
) -> None:
    for target, sets in todo:
        await engine.load_weights(target.folder)
        for chosen in sets:
            progress.show(f"{target.stage}@{target.step} on {chosen.split}")
            started = time.monotonic()
            played = await play_all(settings, chosen, engine, progress.advance)
            record = make_record(target, settings, chosen, played, time.monotonic() - started, engine.name)
            if meter is not None and chosen.split == meter.split:
                first = played[:: settings.samples]
                record = replace(record, divergence=await meter.measure(target, first))
            keep_record(layout, recipe, chosen, played, record)


def make_record(
    target: Target,
    settings: EvalPlay,
    chosen: EvalSet,
    played: Sequence[PlayedEpisode],
    seconds: float,
    engine: str,
) -> EvalRecord:
    """The record of one checkpoint on one split."""
    numbers = summarise(chosen, played, settings.samples)
    cities = {city: CityCount(**counts) for city, counts in numbers.pop("by_city", {}).items()}
    return EvalRecord(
        stage=target.stage,
        arm=target.arm,
        seed=target.seed,
        lr=target.lr,
        step=target.step,
        **numbers,
        by_city=cities,
        wall_s=round(seconds, 2),
        engine=engine,
        **settings.sampling,
    )


def keep_record(
    layout: RunLayout,
    recipe: Recipe,
    chosen: EvalSet,
    played: Sequence[PlayedEpisode],
    record: EvalRecord,
) -> None:
    """Append a record and its first episodes, durably."""
    checkpoint = {name: getattr(record, name) for name in ("stage", "arm", "seed", "step", "split")}
    first = played[:: recipe.budget.eval.samples]
    kept = list(zip(chosen.facts, first, strict=True))[: recipe.budget.eval.sample_episodes]
    episodes = [SampleEpisode(**checkpoint, **stored_episode(facts, episode)) for facts, episode in kept]
    append_record(layout, record, episodes)


def _meter(
    settings: EvalPlay,
    recipe: Recipe,
    state: RunState,
    layout: RunLayout,
    sets: Sequence[EvalSet],
    engine: EvalEngine,
) -> DivergenceMeter | None:
    """Meter of each checkpoint's divergence from its start; None if the recipe wants none."""
    split, episodes = measured_split(recipe), recipe.budget.eval.kl_episodes
    chosen = next((candidate for candidate in sets if candidate.split == split), None)
    if chosen is None:
        return None
    few = replace(chosen, facts=chosen.facts[:episodes])
    return DivergenceMeter(
        engine,
        split=chosen.split,
        episodes=episodes,
        temperature=settings.temperature,
        play=lambda: play_all(replace(settings, samples=1), few, engine, lambda: None),
        find_start=lambda target: start_of(target, state, layout),
    )


async def play_all(
    settings: EvalPlay,
    chosen: EvalSet,
    engine: EvalEngine,
    advance: Any,
    indices: Sequence[int] | None = None,
) -> list[PlayedEpisode]:
    """Play instances of a split at once, by default all; the same seed gives the same results, in order.

    The episodes of an instance stand one after the other.
    """

    async def one(index: int, sample: int) -> PlayedEpisode:
        played = await play_one(settings, chosen, index, engine, sample)
        advance()
        return played

    chosen_indices = range(len(chosen.facts)) if indices is None else indices
    episodes = product(chosen_indices, range(settings.samples))
    return list(await asyncio.gather(*(one(*episode) for episode in episodes)))


def turn_seed(seed: int, split: str, index: int, turn: int, sample: int = 0) -> int:
    """The seed of one response: the same instance, sample and turn get the same one in every evaluation."""
    key = f"{seed}/{split}/{index}/{turn}" + (f"/{sample}" if sample else "")
    # Not `hash`, which differs from process to process.
    return zlib.crc32(key.encode())


async def play_one(
    settings: EvalPlay, chosen: EvalSet, index: int, engine: EvalEngine, sample: int = 0
) -> PlayedEpisode:
    """Play one instance of a split; samples of an instance differ in the seeds of their responses.

    Raises:
        Exception: of the engine or the task; a fault is no result of the model.
    """
    turn = 0

    async def generate(
        prompt_ids: list[int], sampling_params: dict[str, Any], images: Sequence[Image]
    ) -> Generation:
        nonlocal turn
        # Turns are counted over the episode, through all its prompts.
        seed = turn_seed(settings.seed, chosen.split, index, turn, sample)
        turn += 1
        return await engine.generate(prompt_ids, {**sampling_params, "seed": seed}, images)

    episode = make_episode(chosen.facts[index])
    played = await play(
        episode, generate, engine.chat_tokens(), settings.limits, sampling_params=settings.sampling
    )
    if played.fault is not None:
        raise played.fault
    return played


def summarise(chosen: EvalSet, played: Sequence[PlayedEpisode], samples: int = 1) -> dict[str, Any]:
    """The numbers of one split: success counts episodes solved within their attempts.

    Args:
        chosen: The split.
        played: Its episodes, as `play_all` gives them.
        samples: Episodes of each instance.
    """
    digest = chosen.digest
    chosen = chosen.times(samples)
    outcomes = Counter(step.attempt.verdict.outcome for episode in played for step in episode.steps)
    attempts = sum(len(episode.steps) for episode in played)
    # Recognition is measured with one attempt, as in the paper; texts have nothing to recognise.
    first = [episode.steps[0].attempt.verdict.details for episode in played if episode.steps]
    tasks = {str(facts.get("task")) for facts in chosen.facts if facts.get("modality") == "image"}
    claims = [claim for task in sorted(tasks) for claim in TASKS[task].first_claims]
    return {
        "split": chosen.split,
        "data_source": chosen.data_source,
        "episodes": len(played),
        "solved": sum(episode.solved for episode in played),
        "successes": [sum(e.solved for e in group) for group in _by_instance(played, samples)],
        "instances": digest,
        **(_distinct(chosen, played, samples) if samples > 1 else {}),
        "solved_first": sum(bool(e.steps) and e.steps[0].attempt.verdict.correct for e in played),
        "attempts_mean": attempts / max(1, len(played)),
        **_by_trained_rule(chosen, played),
        **_steps(played, samples),
        **_by_city(chosen, played),
        **_first_claims(claims, first),
        "outcomes": dict(sorted(outcomes.items())),
        "errors": sum(episode.error is not None for episode in played),
        "out_of_tokens": sum(episode.out_of_tokens for episode in played),
        "prompt_tokens": sum(episode.prompt_tokens for episode in played),
        "generated_tokens": sum(episode.generated_tokens for episode in played),
        "feedback_tokens": sum(episode.feedback_tokens for episode in played),
    }


def _first_claims(claims: Sequence[str], first: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Correct claims of the first responses, from the details of their verdicts."""
    counts = {claim: sum(bool(details.get(claim)) for details in first) for claim in claims}
    named = {f"{claim}_first": count for claim, count in counts.items() if claim in CLAIMS}
    others = {claim: count for claim, count in counts.items() if claim not in CLAIMS}
    return {**named, "first_claims": others} if others else named


def _by_trained_rule(chosen: EvalSet, played: Sequence[PlayedEpisode]) -> dict[str, int]:
    """Episodes whose first response solves the hand by the rule that was trained, not by the one stated."""
    if not chosen.under_trained:
        return {}
    pairs = zip(chosen.under_trained, played, strict=True)
    first = [(facts, episode.steps[0].attempt) for facts, episode in pairs if facts and episode.steps]
    return {
        "trained_rule_first": sum(
            not attempt.verdict.correct and make_episode(facts).submit(attempt.response).terminated
            for facts, attempt in first
        )
    }


def _by_instance(items: Sequence[T], samples: int) -> list[Sequence[T]]:
    """The samples of each instance."""
    return [items[start : start + samples] for start in range(0, len(items), samples)]


def _distinct(chosen: EvalSet, played: Sequence[PlayedEpisode], samples: int) -> dict[str, Any]:
    """Distinct solutions over the samples of each instance, and those it has, where a task counts them."""
    task = TASKS[str(chosen.facts[0].get("task"))] if chosen.facts else None
    if task is None or task.solution is None or task.solutions is None:
        return {}
    name = task.solution
    keys = [
        {name(step.attempt.verdict.details) for step in episode.steps if step.attempt.verdict.correct}
        for episode in played
    ]
    return {
        "distinct": [len(set().union(*group)) for group in _by_instance(keys, samples)],
        "solutions": [task.solutions(facts) for facts in chosen.facts[::samples]],
    }


def _steps(played: Sequence[PlayedEpisode], samples: int) -> dict[str, Any]:
    """Right actions and responses, of all episodes together, where a task counts them; see `STEP_COUNTS`.

    ``step_counts`` has [right actions, responses] of each instance, for errors clustered by route.
    """
    counted = [name for name in STEP_COUNTS if any(name in episode.metrics for episode in played)]
    sums = {name: round(sum(episode.metrics.get(name, 0.0) for episode in played)) for name in counted}
    if "responses" not in sums:
        return sums
    by_instance = [
        [round(sum(e.metrics.get(name, 0.0) for e in group)) for name in STEP_COUNTS[:2]]
        for group in _by_instance(played, samples)
    ]
    return {**sums, "step_counts": by_instance}


def _by_city(chosen: EvalSet, played: Sequence[PlayedEpisode]) -> dict[str, Any]:
    """Counts of each city, where the routes of a split are in several; empty elsewhere."""
    routes = [facts["route"] for facts in chosen.facts if isinstance(facts.get("route"), Mapping)]
    cities = [str(route.get("city", "")) for route in routes]
    if len(cities) != len(played) or len(set(cities)) < 2:
        return {}
    counts: dict[str, Counter[str]] = {city: Counter() for city in sorted(set(cities))}
    for city, episode in zip(cities, played, strict=True):
        counts[city].update(episodes=1, solved=int(episode.solved))
        numbers = {name: round(episode.metrics.get(name, 0.0)) for name in STEP_COUNTS[:2]}
        counts[city].update(numbers)
    return {"by_city": {city or "unnamed": dict(count) for city, count in counts.items()}}
