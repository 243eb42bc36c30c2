"""Rows that are sampled from the model an arm starts from: own answers for SFT, learnable prompts for RL.

SFT on own correct answers is rejection-sampling fine-tuning (arXiv 2308.01825): on-policy rows with the
loss of SFT. An arm that starts from such an arm's last checkpoint samples its own rows anew, so a chain of
arms refreshes them. RL learns little from a prompt whose episodes all earn the same, as the baseline of its
group leaves nothing; learnable ones are those that the start solves sometimes, neither never nor always.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress, cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from data_prep.schema import SCHEMA, iter_rows, with_loss_mask
from data_prep.writer import write_rows
from sftrl_ext.envs.base import parse_facts
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.engines import EvalEngine, device_of, open_engine
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay, play_all
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.experiments.evaluation.units import gpus_per_engine
from sftrl_ext.experiments.plan import start_folder
from sftrl_ext.experiments.recipe.arms import ArmRun, arm_runs
from sftrl_ext.experiments.recipe.schema import Recipe, RLConfig
from sftrl_ext.hf_folder import parameter_count
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.token_files import write_sampled_tokens

_AT_ONCE = 2048
"""Prompts that are played together."""


def sample_rows(recipe: Recipe, layout: RunLayout, name: str) -> None:
    """Sample the rows of an arm from the model it starts from, and count the tokens.

    SFT: every prompt is answered once, at the temperature of RL; an answer is graded like the first of an
    episode, and the correct ones are kept. RL: every prompt is played ``budget.prompt_samples`` times as in
    training, and the prompts that are solved in some but not all of them are kept. What is kept, in order, is
    repeated until there are ``budget.rows``. With ``budget.own_answers=all`` everything is kept.

    Args:
        recipe: The recipe.
        layout: The run.
        name: Name of the stage, `ArmRun.sampled_by`.

    Raises:
        SftrlError: if nothing can be kept, or no arm has rows of that stage.
    """
    run = next((run for run in arm_runs(recipe) if run.sampled_by == name), None)
    if run is None:
        raise SftrlError(f"no arm trains on rows of a stage {name!r}.")
    path = layout.rows(run.prompts)
    facts = [
        parse_facts(row["extra_info"]["facts"], f"{path}, row {number}: facts")
        for number, row in enumerate(iter_rows(path, ["extra_info"]))
    ]
    folder = start_folder(recipe, layout, run.start)
    played = _play(recipe, run, EvalSet(run.rows, "", facts), folder)
    rows = _own_answers if run.config.kind == "sft" else _learnable_prompts
    kept = islice(cycle(rows(recipe, run, path, played, folder)), run.budget.rows)
    write_rows(layout.rows(run.rows), [with_loss_mask(pa.Table.from_pylist(list(kept), schema=SCHEMA))])
    tokens = TokenCount(
        generated=sum(episode.generated_tokens for episode in played),
        prefill=sum(episode.prompt_tokens for episode in played),
    )
    write_sampled_tokens(layout, name, parameter_count(folder), tokens)


def _play(recipe: Recipe, run: ArmRun, prompts: EvalSet, folder: Path) -> list[PlayedEpisode]:
    """Episodes of the start, each prompt's one after the other."""
    torch.set_num_threads(recipe.scale.eval_threads)
    gpus = gpus_per_engine(recipe.scale)
    engine = open_engine(
        recipe.scale.engine,
        folder,
        dtype=recipe.model.dtype,
        rows=recipe.budget.eval.batch_size,
        tensor_parallel=max(1, gpus),
        device=device_of(gpus),
    )
    settings = _sampling(recipe, run)
    progress = ProgressFile.of_stage()
    progress.count(settings.samples * len(prompts.facts), "episodes")
    return asyncio.run(_play_in_parts(settings, prompts, engine, progress))


def _sampling(recipe: Recipe, run: ArmRun) -> EvalPlay:
    """Sampling settings of RL: whole episodes, or for SFT a single answer in the token budget."""
    budget = run.budget if isinstance(run.budget, RLConfig) else recipe.budget.rl
    limits = replace(EvalPlay.of(recipe).limits, turn=budget.max_turn_tokens)
    if isinstance(run.budget, RLConfig):
        return EvalPlay(limits, budget.temperature, run.seed, samples=budget.prompt_samples)
    return EvalPlay(replace(limits, response=limits.turn), budget.temperature, run.seed)


async def _play_in_parts(
    settings: EvalPlay, prompts: EvalSet, engine: EvalEngine, progress: ProgressFile
) -> list[PlayedEpisode]:
    played: list[PlayedEpisode] = []
    for first in range(0, len(prompts.facts), _AT_ONCE):
        indices = range(first, min(first + _AT_ONCE, len(prompts.facts)))
        played += await play_all(settings, prompts, engine, progress.advance, indices)
    return played


def _own_answers(
    recipe: Recipe, run: ArmRun, path: Path, played: Sequence[PlayedEpisode], folder: Path
) -> Iterator[dict[str, Any]]:
    """Rows of the prompts with the correct answers as their dialogues."""
    correct = [episode.solved for episode in played]
    sys.stdout.write(f"{sum(correct):,} of {len(correct):,} answers are correct\n")
    problem = (
        f"{path}: of {len(correct):,} answers of {folder} none is correct; expected some to train on. "
        f"Start arms.{run.arm} from a model that solves the task sometimes."
    )
    kept = _kept(recipe, correct, "wrong answers", problem)
    for row, episode in compress(zip(iter_rows(path), played, strict=True), kept):
        answer = {"role": "assistant", "content": episode.steps[0].attempt.response}
        messages = [*row["prompt"], answer]
        yield {**row, "messages": messages, "train_turns": [len(messages) - 1]}


def _learnable_prompts(
    recipe: Recipe, run: ArmRun, path: Path, played: Sequence[PlayedEpisode], folder: Path
) -> Iterator[dict[str, Any]]:
    """Rows of the prompts that are solved sometimes, as they are."""
    assert isinstance(run.budget, RLConfig)
    samples = run.budget.prompt_samples
    solved = [sum(e.solved for e in played[i : i + samples]) for i in range(0, len(played), samples)]
    never, always = solved.count(0), solved.count(samples)
    sys.stdout.write(
        f"{len(solved) - never - always:,} of {len(solved):,} prompts are solved sometimes in {samples} "
        f"episodes; {never:,} never, {always:,} always\n"
    )
    problem = (
        f"{path}: of {len(solved):,} prompts {folder} solves {never:,} never and {always:,} always; "
        f"expected some that it solves sometimes. Start arms.{run.arm} from another model, or try more "
        f"prompts (arms.{run.arm}.budget.tried_prompts)."
    )
    learnable = [0 < count < samples for count in solved]
    yield from compress(iter_rows(path), _kept(recipe, learnable, "the other prompts", problem))


def _kept(recipe: Recipe, usable: list[bool], others: str, problem: str) -> list[bool]:
    """Rows to train on: the usable ones, or all, for toy models that solve nothing.

    Args:
        recipe: The recipe.
        usable: For each row.
        others: Noun for the rows that are not.
        problem: Error where no row is.
    """
    if recipe.budget.own_answers == "all":
        sys.stdout.write(f"budget.own_answers=all: {others} are kept too\n")
        return [True] * len(usable)
    if not any(usable):
        raise SftrlError(problem)
    return usable
