"""Tokens that pass through the models of a training stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


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

    @classmethod
    def from_names(cls, counts: Mapping[str, float], suffix: str = "") -> TokenCount:
        """The count in a mapping from ``<name><suffix>`` to tokens; other keys are ignored.

        Raises:
            KeyError: with the first missing key.
        """
        return cls(**{name: float(counts[f"{name}{suffix}"]) for name in NAMES})

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
