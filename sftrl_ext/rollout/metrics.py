"""Metrics of a played episode, with the same keys for every episode of a task that ended without an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sftrl_ext.rollout.player import PlayedEpisode


def episode_metrics(played: PlayedEpisode) -> dict[str, float]:
    """Metrics of an episode; verl takes ``acc`` as the core metric of a data source.

    The task's metrics (`Episode.metrics`) come first; counts of tokens and errors are added here. An episode
    that ended with an error has those only: a fault is no failure of the model, and is in no mean of scores.
    """
    scores = {**played.metrics, "acc": float(played.solved), "turns": float(len(played.steps))}
    return {
        **(scores if played.error is None else {}),
        "prompt_tokens": float(played.prompt_tokens),
        "generated_tokens": float(played.generated_tokens),
        "feedback_tokens": float(played.feedback_tokens),
        "prefill_tokens": float(played.prefill_tokens),
        "cut_turns": float(played.cut_turns),
        "out_of_tokens": float(played.out_of_tokens),
        "episode_error": float(played.error is not None),
    }


def mean_metrics(episodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every key over the episodes that have it."""
    # Per key the sum and the number of episodes that have it.
    sums: dict[str, list[float]] = {}
    for numbers in episodes:
        for key, value in numbers.items():
            total = sums.setdefault(key, [0.0, 0.0])
            total[0] += float(value)
            total[1] += 1
    return {key: total / count for key, (total, count) in sums.items()}
