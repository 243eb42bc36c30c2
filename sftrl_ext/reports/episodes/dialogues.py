"""Sample episodes of a report: the same instance played by the start and by each arm, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftrl_ext.plain_text import one_line, printable
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import split_order
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.runs.records import SampleEpisode, StoredSegment


@dataclass(frozen=True)
class Line:
    """One message of a dialogue; an assistant's message carries its attempt's outcome and reward.

    Attributes:
        point: Of an episode with several prompts the one it belongs to, if that is stored.
    """

    role: str
    content: str
    outcome: str | None = None
    reward: float | None = None
    point: int | None = None


@dataclass(frozen=True)
class SideBySide:
    """One instance of a split and the episodes of the arms that played it, in order of arms."""

    split: str
    facts: Mapping[str, Any]
    episodes: tuple[SampleEpisode, ...]

    @property
    def shared(self) -> int:
        """Number of messages before the first response that all the episodes have in common."""
        texts = [[(m.get("role"), m.get("content")) for m in episode.opening] for episode in self.episodes]
        count = 0
        for column in zip(*texts, strict=False):
            if len(set(column)) > 1 or column[0][0] == "assistant":
                break
            count += 1
        return count

    def prompt(self) -> list[Line]:
        """The messages that all the episodes have in common."""
        return list(dialogue(self.episodes[0]))[: self.shared]


def dialogue(episode: SampleEpisode) -> Iterator[Line]:
    """Messages in order, each response with its verdict.

    Of an episode with several prompts the first one is given whole, of each later one what is new in it.
    Where only the dialogue of the last prompt is stored, its responses are those of the last attempts.
    """
    segments = episode.segments or (StoredSegment(-1, episode.messages),)
    responses = sum(m.get("role") == "assistant" for segment in segments for m in segment.messages)
    attempts = list(episode.attempts)[-responses:] if responses else []
    verdicts = iter([*attempts, *({} for _ in range(responses - len(attempts)))])
    before: list[str] = []
    for segment in segments:
        point = segment.point if episode.segments else None
        prompt: list[str] = []
        answered = False
        for message in segment.messages:
            role = one_line(str(message.get("role", "")))
            content = printable(str(message.get("content", "")))
            if role == "assistant":
                answered = True
                yield _answer(content, next(verdicts), point)
                continue
            if not answered:
                prompt.append(content)
                content = (
                    new_part(before[len(prompt) - 1], content) if len(prompt) <= len(before) else content
                )
            if content:
                yield Line(role, content, point=point)
        before = prompt


def _answer(content: str, attempt: Mapping[str, Any], point: int | None) -> Line:
    outcome, reward = attempt.get("outcome"), attempt.get("reward")
    number = float(reward) if isinstance(reward, int | float) else None
    return Line("assistant", content, None if outcome is None else one_line(str(outcome)), number, point)


def new_part(before: str, now: str) -> str:
    """The lines of a text that are new against an earlier one: what is between their common ends."""
    old, new = before.splitlines(), now.splitlines()
    start = _common(old, new)
    # A line that is part of the common beginning must not count for the common end too.
    end = min(_common(old[::-1], new[::-1]), len(old) - start, len(new) - start)
    return "\n".join(new[start : len(new) - end])


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the common beginning of two sequences."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def fact_items(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of an instance that fit on a line: short values, lists joined."""
    items = []
    for key, value in facts.items():
        if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
            text = " ".join(map(str, value))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            text = str(value)
        else:
            continue
        if len(text) <= 60:
            items.append((one_line(str(key)), one_line(text)))
    return items


def _of_compared_checkpoints(analysis: Analysis) -> list[SampleEpisode]:
    """Episodes of the start and of each arm's compared checkpoint; of the last one stored, failing that."""
    wanted = {
        arm: {(c.stage, c.step) for c in analysis.equal.chosen[curve.key]}
        for arm, curve in analysis.picked.items()
    }
    kept = []
    wanted[analysis.curves.start_arm] = {(c.stage, c.step) for c in analysis.curves.start}
    for arm in {episode.arm for episode in analysis.run.episodes} & set(wanted):
        played = [episode for episode in analysis.run.episodes if episode.arm == arm]
        exact = [episode for episode in played if (episode.stage, episode.step) in wanted.get(arm, set())]
        last = max(episode.step for episode in played)
        kept += exact or [episode for episode in played if episode.step == last]
    return kept


def pick_side_by_side(analysis: Analysis, *, limit: int | None = None) -> list[SideBySide]:
    """Choose instances to show: those played by most arms first, and among them where the arms differ.

    Two instances of the `id` split and of the verdicts' splits, then one of each further split.

    Args:
        analysis: The analysed run.
        limit: How many at most; None is 8, with pictures 14, for there are more splits.
    """
    limit = limit if limit is not None else 14 if analysis.recognizes else 8
    played: dict[str, dict[str, dict[str, SampleEpisode]]] = {}
    for episode in _of_compared_checkpoints(analysis):
        key = json.dumps(episode.facts, sort_keys=True, default=str)
        arms = played.setdefault(episode.split, {}).setdefault(key, {})
        if episode.arm not in arms or episode.seed < arms[episode.arm].seed:
            arms[episode.arm] = episode
    first = [split for split in (*analysis.main_splits, ID_SPLIT) if split in played]
    chosen = []
    for split in [*first, *(s for s in split_order(played) if s not in first)]:
        ranked = sorted(
            played[split].items(),
            key=lambda item: (-len(item[1]), len({e.solved for e in item[1].values()}) == 1, item[0]),
        )
        for _, arms in ranked[: 2 if split in first else 1]:
            episodes = tuple(
                arms[arm]
                for arm in sorted(
                    arms, key=lambda a: (a not in ("init", "base"), analysis.arms.order(arms).index(a))
                )
            )
            chosen.append(SideBySide(split, episodes[0].facts, episodes))
    return chosen[:limit]
