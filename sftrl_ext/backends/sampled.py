"""A token as an engine sampled it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class SampledToken(NamedTuple):
    """A token with its log-probability."""

    id: int
    logprob: float
    """Log-probability under the distribution the token was sampled from, in nats."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens at this place with their log-probabilities, where a request asks for them."""


OnTokens = Callable[[list[SampledToken]], None]
"""Takes the tokens that an engine has just sampled; called in the engine's thread."""
