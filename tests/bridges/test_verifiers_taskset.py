"""Taskset of verifiers: its own environment plays our rows, with a reward for each turn."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points import solve
from sftrl_ext.envs.virl.city import build_city
from tests.serving import canned, served

pytestmark = pytest.mark.bridges

HUB = Path(__file__).parents[2] / "examples" / "environments_hub"


@pytest.fixture
def play(monkeypatch):
    """Plays every row of a taskset against a server; returns the episodes of verifiers."""
    from verifiers.v1.clients import ModelContext
    from verifiers.v1.configs.client import EvalClientConfig
    from verifiers.v1.types import SamplingConfig
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    monkeypatch.syspath_prepend(HUB)
    monkeypatch.syspath_prepend(Path(__file__).parent)

    async def run(url, taskset):
        harness = {"harness": {"id": "in-process-harness"}}
        env = load_environment(
            resolve_env_config({"taskset": {"id": "sftrl-rows", **taskset}, "player": harness})
        )
        client = EvalClientConfig(base_url=url, api_key_var="SFTRL_NO_KEY")
        context = ModelContext(client=client, model="m", sampling=SamplingConfig())
        async with env.serving():
            return [await env.run_episode(task, context) for task in env.taskset]

    def start(reply, **taskset):
        with served(canned(reply)) as seen:
            episodes = asyncio.run(run(seen.url, taskset))
        assert all(episode.ok for episode in episodes), [episode.errors for episode in episodes]
        return episodes, seen.requests

    return start


def test_each_turn_has_its_reward(play):
    rows = {"split": "rule_ood", "rows": 2, "seed": 3}
    facts = find_rows(task="general_points", max_attempts=3, **rows).facts
    right = {}
    for row in facts:
        episode = make_episode(row)
        formula = solve(episode.numbers, episode.target)[0]
        answer = {"number": list(episode.numbers), "formula": f"{formula}=24"}
        right[episode.messages()[-1]["content"]] = json.dumps(answer)

    def reply(body):
        dialogue = [message["content"] for message in body["messages"] if message["role"] != "system"]
        return "no" if len(dialogue) == 1 else right[dialogue[0]]

    episodes, requests = play(reply, kind="general_points", options={"max_attempts": 3}, **rows)
    for episode in episodes:
        (trace,) = episode.traces
        rewards = {name: reward.score for name, reward in trace.rewards.items()}
        assert rewards == {"turn_1": -3.0, "turn_2": 5.0}
        assert (trace.reward, trace.metrics["solved"]) == (2.0, 1.0)
    first = make_episode(facts[0])
    assert requests[0]["messages"] == first.messages()
    first.submit("no")
    assert requests[1]["messages"] == first.messages()


def test_a_new_prompt_opens_a_dialogue_of_its_own(play, tmp_path):
    routes = build_city(tmp_path / "city", style="brick", routes=3, width=64)
    options = {"routes": str(routes)}
    (facts,) = find_rows(task="virl", rows=1, **options).facts
    walked = make_episode(facts)
    points = walked.rail.points

    def reply(body):
        """The right action at each point, from the prompt that asks for it."""
        prompt = body["messages"][-1]["content"]
        while walked.messages()[-1]["content"] != prompt:
            walked.submit(json.dumps({"action": walked.point.action}))
        return json.dumps({"action": walked.point.action})

    (episode,), requests = play(reply, kind="virl", rows=1, options=options)
    assert len(episode.traces) == len(points) == len(requests) > 1
    assert [trace.reward for trace in episode.traces] == [1.0] * len(points)
    assert episode.traces[-1].metrics["solved"] == 1.0
