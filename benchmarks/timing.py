"""How long a call takes, for the scripts in this folder."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_seconds(call: Callable[[], object], rounds: int, repeat: int = 1) -> float:
    """Seconds of this process for one call: the best of several rounds of so many calls each."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeat):
            call()
        best = min(best, (time.process_time() - start) / repeat)
    return best
