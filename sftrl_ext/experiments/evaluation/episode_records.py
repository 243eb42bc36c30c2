"""Readable record of an episode: a line of ``eval/episodes.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftrl_ext.rollout.player import PlayedEpisode


def stored_episode(facts: Mapping[str, Any], played: PlayedEpisode) -> dict[str, Any]:
    """An episode as JSON.

    Args:
        facts: What it was built from.
        played: The episode after its end.

    Returns:
        ``facts``, ``messages`` (the dialogue of the last prompt), ``attempts`` (outcome and reward of each)
        and ``solved``. With more than one prompt each attempt also has its ``point``, the prompt it answers
        (of a route the point of the rail, counted from 0), and its ``response``; and ``segments`` holds the
        dialogue of every prompt, as ``point`` and ``messages``.
    """
    attempts: list[dict[str, Any]] = [
        {"outcome": step.attempt.verdict.outcome, "reward": step.reward} for step in played.steps
    ]
    record = {"facts": facts, "messages": played.messages, "attempts": attempts, "solved": played.solved}
    if len(played.segments) < 2:
        return record
    points = range(first := int(facts.get("first_point", 0)), first + len(played.segments))
    of_turns = [
        point for point, segment in zip(points, played.segments, strict=True) for _ in segment.turn_rewards
    ]
    for attempt, step, point in zip(attempts, played.steps, of_turns, strict=True):
        attempt.update(point=point, response=step.attempt.response)
    segments = [
        {"point": point, "messages": segment.messages}
        for point, segment in zip(points, played.segments, strict=True)
    ]
    return {**record, "segments": segments}
