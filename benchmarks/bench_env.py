"""Time of a text episode without a model: ``python benchmarks/bench_env.py``.

A hand with five failed attempts, and a route of eight legs walked right, every point of it after one failed
attempt; prompts are built anew at each point. Prints one JSON object with the measured numbers beside their
bounds; exits with 1 if one is missed. Times are of the process, the best of several rounds, so that other
work on the machine does not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import gymnasium
from timing import best_seconds

import sftrl_ext.envs
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.envs.virl import episode as virl
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.routes import load_routes

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
    "route_step_default": 500.0,
    "route_step_compact": 500.0,
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


def walk(facts: dict[str, object]) -> int:
    """Walk a route to its end; returns how many steps it took."""
    episode = virl.NavigationEpisode(facts)
    steps = 0
    while not episode.done:
        episode.messages()
        episode.submit("I have no answer.")
        episode.messages()
        episode.submit(episode.expert_answer())
        steps += 2
    assert episode.solved
    return steps


def route_step_us(template: str) -> float:
    """Microseconds of one step on the longest route of a city, building the episode included."""
    with tempfile.TemporaryDirectory() as folder:
        routes = load_routes(build_city(Path(folder), routes=50, pictures=False)).routes
    longest = max(routes, key=lambda route: len(route.milestones))
    facts = virl.make_facts(virl.track_of(longest, virl.PlaySettings()), virl.PlaySettings(template=template))
    return best_seconds(lambda: walk(facts), rounds=20, repeat=5) * 1e6 / walk(facts)


def main() -> int:
    env = gymnasium.make(sftrl_ext.envs.GENERAL_POINTS_ID).unwrapped
    env.reset(seed=0)
    measured = {
        "episode_default": best_us(play("default")),
        "episode_compact": best_us(play("compact")),
        "episode_authors": best_us(play("default", "authors")),
        "env_reset": best_us(env.reset),
        "route_step_default": route_step_us("default"),
        "route_step_compact": route_step_us("compact"),
    }
    steps = {name: round(1e6 / us) for name, us in measured.items() if name.startswith("route")}
    numbers = {name: round(us, 1) for name, us in measured.items()}
    print(json.dumps({"us": numbers, "steps_per_s": steps, "at_most": AT_MOST_US}))
    return int(any(measured[name] > limit for name, limit in AT_MOST_US.items()))


if __name__ == "__main__":
    sys.exit(main())
