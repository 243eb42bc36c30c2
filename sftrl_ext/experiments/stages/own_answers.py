"""Rows of own answers: an arm's start answers prompts, and the answers that are graded correct are kept.

SFT on them is rejection-sampling fine-tuning (arXiv 2308.01825): on-policy rows with the loss of SFT. An arm
that starts from such an arm's last checkpoint samples its own rows anew, so a chain of arms refreshes them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress, cycle, islice
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
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.hf_folder import parameter_count
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.token_files import write_sampled_tokens

_AT_ONCE = 2048
"""Prompts that are answered together."""


def sample_rows(recipe: Recipe, layout: RunLayout, name: str) -> None:
    """Sample the rows of an arm from the model it starts from, and count the tokens.

    Every prompt is answered once, at the temperature of RL; an answer is graded like the first of an
    episode. The correct ones (``budget.own_answers``), in order, are repeated until there are
    ``budget.rows``.

    Args:
        recipe: The recipe.
        layout: The run.
        name: Name of the stage, `ArmRun.sampled_by`.

    Raises:
        SftrlError: if no answer is correct, or no arm has rows of that stage.
    """
    run = next((run for run in arm_runs(recipe) if run.sampled_by == name), None)
    if run is None:
        raise SftrlError(f"no arm trains on rows of a stage {name!r}.")
    path = layout.rows(run.prompts)
    facts = [
        parse_facts(row["extra_info"]["facts"], f"{path}, row {number}: facts")
        for number, row in enumerate(iter_rows(path, ["extra_info"]))
    ]
    prompts = EvalSet(run.rows, "", facts)
    folder = start_folder(recipe, layout, run.start)
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
    progress = ProgressFile.of_stage()
    progress.count(len(facts), "prompts")
    played = asyncio.run(_answer(_first_attempt(recipe, run), prompts, engine, progress))
    correct = [episode.solved for episode in played]
    sys.stdout.write(f"{sum(correct):,} of {len(correct):,} answers are correct\n")
    if recipe.budget.own_answers == "all":
        sys.stdout.write("budget.own_answers=all: wrong ones are kept too\n")
        correct = [True] * len(played)
    if not any(correct):
        raise SftrlError(
            f"{path}: of {len(correct):,} answers of {folder} none is correct; expected some to train on. "
            f"Start arms.{run.arm} from a model that solves the task sometimes."
        )
    kept = compress(_answered_rows(layout, run, played), correct)
    rows = islice(cycle(kept), run.budget.rows)
    write_rows(layout.rows(run.rows), [with_loss_mask(pa.Table.from_pylist(list(rows), schema=SCHEMA))])
    tokens = TokenCount(
        generated=sum(episode.generated_tokens for episode in played),
        prefill=sum(episode.prompt_tokens for episode in played),
    )
    write_sampled_tokens(layout, name, parameter_count(folder), tokens)


def _first_attempt(recipe: Recipe, run: ArmRun) -> EvalPlay:
    """Sampling settings of RL, with room for a single answer in the token budget."""
    play = EvalPlay.of(recipe)
    turn = recipe.budget.rl.max_turn_tokens
    limits = replace(play.limits, response=turn, turn=turn)
    return EvalPlay(limits, recipe.budget.rl.temperature, seed=run.seed)


async def _answer(
    settings: EvalPlay, prompts: EvalSet, engine: EvalEngine, progress: ProgressFile
) -> list[PlayedEpisode]:
    played: list[PlayedEpisode] = []
    for first in range(0, len(prompts.facts), _AT_ONCE):
        indices = range(first, min(first + _AT_ONCE, len(prompts.facts)))
        played += await play_all(settings, prompts, engine, progress.advance, indices)
    return played


def _answered_rows(
    layout: RunLayout, run: ArmRun, played: Sequence[PlayedEpisode]
) -> Iterator[dict[str, Any]]:
    """Rows of the prompts with the answers as their dialogues."""
    for row, episode in zip(iter_rows(layout.rows(run.prompts)), played, strict=True):
        answer = {"role": "assistant", "content": episode.steps[0].attempt.response}
        messages = [*row["prompt"], answer]
        yield {**row, "messages": messages, "train_turns": [len(messages) - 1]}
