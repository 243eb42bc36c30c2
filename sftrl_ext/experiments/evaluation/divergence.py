"""KL divergence of every checkpoint from the start of its training, on episodes of the trained task.

"RL's Razor" (arXiv 2509.04259) finds that what a fine-tuned model has forgotten is predicted by its
divergence from the start model on inputs of the *new* task. Two directions are measured, in nats per
generated token:

- forward, KL(start || policy), on episodes that the start played: the predictor of that paper;
- reverse, KL(policy || start), on the policy's own episodes.

An engine that has whole distributions compares them at every token the model wrote. What an engine cannot
measure is absent from the record, with the reason, and never zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.experiments.evaluation.engines import ComparesWeights, EvalEngine
from sftrl_ext.experiments.evaluation.targets import Target
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.records import Divergence, KLEstimate

NO_WEIGHTS = "the weights of the start are no longer there"
"""Reason of an absent divergence."""


def measured_split(recipe: Recipe) -> str | None:
    """The split the divergence is measured on: the one trained on, or the first; None if it is not wanted."""
    splits = recipe.task.eval_splits
    if recipe.budget.eval.kl_episodes < 1 or not splits:
        return None
    return recipe.task.train_split if recipe.task.train_split in splits else splits[0]


def generated(episode: PlayedEpisode) -> int:
    """Tokens that the model wrote in an episode."""
    return sum(sum(segment.response_mask) for segment in episode.segments)


def per_token(nats: Sequence[float], tokens: Sequence[int]) -> KLEstimate:
    """Divergence per token over all episodes, with its standard error over episodes.

    The mean is a ratio of two sums, so its error is that of a ratio: with d = nats - mean x tokens of each of
    n episodes, ``sqrt(sum(d^2) / (n - 1) * n) / sum(tokens)``.

    Args:
        nats: Of each episode, summed over its tokens.
        tokens: Generated tokens of each episode.
    """
    pairs = [(kl, count) for kl, count in zip(nats, tokens, strict=True) if count]
    count, total = len(pairs), sum(tokens_of for _, tokens_of in pairs)
    mean = sum(kl for kl, _ in pairs) / total
    squares = sum((kl - mean * tokens_of) ** 2 for kl, tokens_of in pairs)
    se = math.sqrt(squares / (count - 1) * count) / total if count > 1 else None
    return KLEstimate(mean, se, count, total)


class DivergenceMeter:
    """Measures the divergence of one checkpoint after the other.

    Args:
        engine: The engine of the evaluation.
        split: The split whose first instances it measures on.
        episodes: How many of them.
        temperature: Of the evaluation.
        play: Plays these instances with the weights that the engine holds.
        find_start: Gives what a checkpoint started from, as `start_of`.
    """

    def __init__(
        self,
        engine: EvalEngine,
        *,
        split: str,
        episodes: int,
        temperature: float,
        play: Callable[[], Awaitable[list[PlayedEpisode]]],
        find_start: Callable[[Target], tuple[str, Path | None] | None],
    ) -> None:
        self.split = split
        self._engine, self._episodes, self._temperature = engine, episodes, temperature
        self._play, self._find_start = play, find_start
        self._start: Path | None = None
        self._of_start: list[PlayedEpisode] = []

    async def measure(self, target: Target, played: Sequence[PlayedEpisode]) -> Divergence | None:
        """Measure the checkpoint that the engine holds; it holds it again afterwards.

        Args:
            target: The checkpoint.
            played: Its episodes on the split.

        Returns:
            None where there is no start to measure from.
        """
        origin = self._find_start(target)
        if origin is None:
            return None
        start, folder = origin
        engine, started = self._engine, time.monotonic()
        if not isinstance(engine, ComparesWeights):
            return Divergence(start, absent=f"engine {engine.name!r} does not give whole distributions")
        if folder is None:
            return Divergence(start, absent=NO_WEIGHTS)
        # The start's episodes are kept while it stays the same: they serve all checkpoints of a stage.
        if self._start != folder:
            await engine.load_weights(folder)
            self._of_start = await self._play()
            self._start = folder
            await engine.load_weights(target.folder)
        of_checkpoint = played[: self._episodes]
        measured = await compare_weights(engine, folder, self._of_start, of_checkpoint, self._temperature)
        return Divergence(start, **measured, wall_s=round(time.monotonic() - started, 2))


async def compare_weights(
    engine: ComparesWeights,
    start: Path,
    of_start: Sequence[PlayedEpisode],
    of_checkpoint: Sequence[PlayedEpisode],
    temperature: float,
) -> dict[str, Any]:
    """Divergence in both directions between the checkpoint that an engine holds and its start.

    Args:
        engine: It holds the checkpoint.
        start: Folder of the start.
        of_start: Episodes that the start played.
        of_checkpoint: Episodes that the checkpoint played.
        temperature: Of the evaluation.

    Returns:
        ``forward`` and ``reverse``, or ``absent`` with the reason: fields of a `Divergence`.
    """
    sides = {"forward": (of_start, False), "reverse": (of_checkpoint, True)}
    if not all(any(map(generated, episodes)) for episodes, _ in sides.values()):
        return {"absent": "no token was generated"}
    measured = {}
    for name, (episodes, to_start) in sides.items():
        segments = [segment for episode in episodes for segment in episode.segments]
        # One sum per segment, in the order of the segments: an episode takes as many as it has.
        nats = iter(await engine.divergence(segments, start, temperature, to_other=to_start))
        sums = [sum(next(nats) for _ in episode.segments) for episode in episodes]
        measured[name] = per_token(sums, [generated(episode) for episode in episodes])
    return measured
