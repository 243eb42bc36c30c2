"""The stored divergence of a checkpoint from what its stage started from, one seed's and that of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftrl_ext.runs.jsonl import Fields
from sftrl_ext.runs.stats import mean_of_seeds


@dataclass(frozen=True)
class Nats:
    """A divergence per generated token.

    Attributes:
        mean: Nats.
        se: Its standard error over episodes, and over seeds; None for a single episode, which has none.
    """

    mean: float
    se: float | None

    def __str__(self) -> str:
        digits = 4 if self.mean < 0.1 else 3
        error = "" if self.se is None else f" ± {self.se:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}"


@dataclass(frozen=True)
class Divergence:
    """How far a checkpoint is from its start, on episodes of the split trained on.

    Attributes:
        start: ``<stage>@<step>`` of its start.
        forward: KL(start || checkpoint), on episodes that the start played.
        reverse: KL(checkpoint || start), on its own episodes.
    """

    start: str
    forward: Nats
    reverse: Nats


DIRECTIONS = ("forward", "reverse")
"""The two measures of a `Divergence`."""


def read_divergence(record: Fields) -> Divergence | str | None:
    """What a record says: the divergence, why there is none, or nothing.

    Raises:
        SftrlError: naming file, line and key, if it has another form.
    """
    told = record.inner("divergence")
    if told is None:
        return None
    if "absent" in told.item:
        return told.text("absent")
    return Divergence(told.text("start"), *(_nats(told, name) for name in DIRECTIONS))


def _nats(told: Fields, name: str) -> Nats:
    one = told.inner(name)
    mean = None if one is None else one.number("nats")
    if one is None or mean is None:
        raise told.bad(name, "an object with the number 'nats'")
    return Nats(mean, one.number("se"))


def mean_divergence(found: Sequence[Divergence], direction: str) -> Nats | None:
    """Mean of several seeds' divergences, with its standard error; None if there is none.

    Args:
        found: One for each seed.
        direction: ``forward`` or ``reverse``.
    """
    parts: list[Nats] = [getattr(one, direction) for one in found]
    if not parts:
        return None
    mean, se = mean_of_seeds([part.mean for part in parts], [part.se or 0.0 for part in parts])
    return Nats(mean, se or None)
