"""Time of a five-turn text episode without a model: ``python benchmarks/bench_env.py``.

Prints one JSON object with the measured numbers beside their floors; exits with 1 if one is missed. Times are
of the process, the best of several rounds, so that other work on the machine does not count.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import gymnasium
from timing import best_seconds

import sftrl_ext.envs
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts

RESPONSES = (
    '{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "10*5-2-4=24"}',
    "I have no answer.",
    '{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "10*(5-2=24"}',
    '{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "10*5-4=24"}',
    '{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "10*5/2+4=24"}',
)

AT_MOST_US = {
    "episode_default": 1000.0,
    "episode_compact": 1000.0,
    "episode_authors": 2000.0,
    "env_reset": 2000.0,
}


def best_us(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    return best_seconds(call, rounds=20, repeat=100) * 1e6


def play(template: str, profile: str = "exact") -> Callable[[], None]:
    facts = make_facts(["KS", "5H", "2D", "4C"], settings=PlaySettings(template=template, profile=profile))

    def episode() -> None:
        game = make_episode(facts)
        game.messages()
        for response in RESPONSES:
            step = game.submit(response)
        assert step.truncated
        game.metrics()

    return episode


def main() -> int:
    env = gymnasium.make(sftrl_ext.envs.GENERAL_POINTS_ID).unwrapped
    env.reset(seed=0)
    measured = {
        "episode_default": best_us(play("default")),
        "episode_compact": best_us(play("compact")),
        "episode_authors": best_us(play("default", "authors")),
        "env_reset": best_us(env.reset),
    }
    print(json.dumps({"us": {k: round(v, 1) for k, v in measured.items()}, "at_most": AT_MOST_US}))
    return int(any(measured[name] > limit for name, limit in AT_MOST_US.items()))


if __name__ == "__main__":
    sys.exit(main())
