"""The episode: a chain of secret functions is applied to a symbol.

A function is a permutation of sixteen symbols. Its table is in no prompt: a model learns it in pre-training,
from single applications.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.question import QuestionEpisode

SYMBOLS = "abcdefghijklmnop"
FUNCTIONS = "ABCDEFGH"


@lru_cache(maxsize=16)
def tables(seed: int) -> Mapping[str, Mapping[str, str]]:
    """The functions of a seed: name to what each symbol becomes."""
    rng = random.Random(seed)
    return {name: dict(zip(SYMBOLS, rng.sample(SYMBOLS, len(SYMBOLS)), strict=True)) for name in FUNCTIONS}


def applications(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Function, symbol and result of each application; the last function of the prompt comes first."""
    symbol, steps = facts["symbol"], []
    for name in reversed(facts["functions"]):
        result = tables(facts.get("seed", 0))[name][symbol]
        steps.append((name, symbol, result))
        symbol = result
    return steps


class Compose(QuestionEpisode):
    """Asks for the result of ``functions``, from right to left, on ``symbol``.

    The last word of a response is its answer, so that working may stand before it.
    """

    def question(self) -> str:
        """The prompt."""
        return f"apply {' '.join(self.facts['functions'])} to {self.facts['symbol']}"

    def grade(self, response: str) -> Verdict:
        """Right if the last word is the result."""
        last = response.split()[-1:]
        if last == [applications(self.facts)[-1][2]]:
            return Verdict("correct", reward=1.0, feedback="")
        known = last and last[0] in SYMBOLS
        return Verdict("wrong" if known else "no_symbol", reward=0.0 if known else -1.0, feedback="No.")
