"""The rows: chains of one function in pre-training, trained and other pairs, and chains of three."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from compose_task.episode import FUNCTIONS, SYMBOLS, applications
from data_prep.episode_rows import EpisodeRows

PAIRS = ["".join(pair) for pair in product(FUNCTIONS, repeat=2)]
OTHER = [pair for pair in PAIRS if (3 * FUNCTIONS.index(pair[0]) + FUNCTIONS.index(pair[1])) % 4 == 0]
"""Pairs that no training shows: each function is in them as often, in either place."""

CHAINS = {
    "single": list(FUNCTIONS),
    "id": [pair for pair in PAIRS if pair not in OTHER],
    "other_pairs": OTHER,
    "depth_3": ["".join(chain) for chain in product(FUNCTIONS, repeat=3)],
}
"""Split to its chains of functions."""


class ComposeRows(EpisodeRows):
    """Chains and symbols, drawn evenly; ``task.settings.seed`` chooses the secret functions."""

    splits = tuple(CHAINS)

    def draw(self, split: str, train: bool, rng: np.random.Generator) -> Mapping[str, Any]:
        """Facts of one episode."""
        return {
            "functions": CHAINS[split][rng.integers(len(CHAINS[split]))],
            "symbol": SYMBOLS[rng.integers(len(SYMBOLS))],
            "seed": self.config.settings.get("seed", 0),
        }

    def answer(self, facts: Mapping[str, Any]) -> str:
        """The result alone."""
        return applications(facts)[-1][2]

    def worked_answer(self, facts: Mapping[str, Any]) -> str:
        """Every application, the result last."""
        return " , ".join(f"{name} {symbol} {result}" for name, symbol, result in applications(facts))

    def mistake(self, facts: Mapping[str, Any], rng: np.random.Generator) -> str:
        """Another symbol."""
        return str(rng.choice([symbol for symbol in SYMBOLS if symbol != self.answer(facts)]))
