"""Token counts of a training stage: its ``tokens.jsonl``, completed from logged metrics for older runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from sftrl_ext.runs.jsonl import Fields, read_jsonl

Logged = Sequence[tuple[int, Mapping[str, float]]]
"""Logged metrics of a stage: [(step, {metric: value})], in order of steps."""

SFT_TOKENS = "train/global_tokens"
"""Tokens of one SFT step, as verl logs them."""
SFT_REFERENCE = "train/kl_start"
"""Logged by SFT steps that also read their tokens with the start model."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens a stage has worked through up to a step, counted every time they pass through a model.

    Attributes:
        trained: Forward and backward passes of the actor, every epoch counted.
        generated: Sampled in the rollout.
        prefill: Prompt and feedback tokens read in the rollout.
        forward: Forward-only passes of a model of the actor's size: old and reference log-probabilities, the
            start model of an anchored SFT loss.
        trained_critic: Forward and backward passes of the critic, every epoch counted.
        forward_critic: Forward-only passes of the critic: values.
        sequence: Tokens of the sequences trained on, each once; 0 if unknown.
    """

    trained: float = 0.0
    generated: float = 0.0
    prefill: float = 0.0
    forward: float = 0.0
    trained_critic: float = 0.0
    forward_critic: float = 0.0
    sequence: float = 0.0

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(*(getattr(self, name) + getattr(other, name) for name in NAMES))

    @property
    def total(self) -> float:
        """Tokens trained on by the actor, generated, or read as a prompt."""
        return self.trained + self.generated + self.prefill

    @property
    def epochs(self) -> float | None:
        """Epochs over every sequence, those of the critic where they are more; None if unknown."""
        if not self.sequence:
            return None
        return max(self.trained, self.trained_critic) / self.sequence

    def as_line(self) -> dict[str, int]:
        """The counts under their keys in ``tokens.jsonl``."""
        return {f"{name}_tokens": round(getattr(self, name)) for name in NAMES}


NAMES = tuple(field.name for field in fields(TokenCount))
"""Names of the counts: ``<name>_tokens`` in ``tokens.jsonl``, ``tokens/<name>`` in logged metrics."""


def counts_of(totals: Mapping[str, float]) -> TokenCount:
    """The count of an RL stage from its totals by name.

    Totals of earlier versions lack ``sequence``, which is what the rollout read and wrote, and have the
    critic's values in ``forward``.
    """
    count = TokenCount(**{name: totals[name] for name in NAMES if name in totals})
    if "sequence" in totals:
        return count
    return count + TokenCount(sequence=count.generated + count.prefill)


def read_token_counts(path: Path, logged: Logged, notes: list[str]) -> dict[int, TokenCount]:
    """Read ``tokens.jsonl`` of a stage: step to cumulative counts.

    Lines of earlier versions lack the critic and the forward-only passes. The trainer logged them all the
    same, so they are taken from the stage's metrics.

    Args:
        path: The file.
        logged: Logged metrics of the stage.
        notes: Gets a sentence if passes were counted in neither.

    Raises:
        SftrlError: naming file and line, if a line is malformed.
    """
    counts: dict[int, TokenCount] = {}
    incomplete = False
    for line, item in read_jsonl(path, notes):
        get = Fields(path, line, item)
        step = get.integer("step")
        stored = {name: get.number(f"{name}_tokens") for name in NAMES}
        count = TokenCount(**{name: value for name, value in stored.items() if value is not None})
        if stored["forward"] is None:
            completed = _completed(count, step, logged)
            incomplete |= completed is None
            count = completed or count
        counts[step] = count
    if incomplete:
        notes.append(
            f"Stage `{path.parent.name}`: neither `tokens.jsonl` nor the logged metrics count the critic and "
            "the forward-only passes; its counted compute is a lower bound."
        )
    return counts


def _completed(count: TokenCount, step: int, logged: Logged) -> TokenCount | None:
    """An older line's count with what the stage logged; None if that is not known."""
    if not count.generated:
        return count + TokenCount(forward=sft_reference_tokens(logged, step))
    at_step = next((data for number, data in logged if number == step), {})
    totals = {name: at_step[f"tokens/{name}"] for name in NAMES if f"tokens/{name}" in at_step}
    return counts_of(totals) if {"trained", "generated", "prefill", "forward"} <= set(totals) else None


def sft_reference_tokens(logged: Logged, step: int) -> float:
    """Tokens that the start model read for an anchored SFT loss, up to a step."""
    return sum(_reference_tokens(data for number, data in logged if number <= step))


def _reference_tokens(steps: Iterable[Mapping[str, float]]) -> Iterable[float]:
    return (data.get(SFT_TOKENS, 0.0) for data in steps if SFT_REFERENCE in data)
