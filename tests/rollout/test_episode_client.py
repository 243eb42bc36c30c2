"""Tests of `sftrl_ext.rollout.episode_client`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from sftrl_ext.backends.hf_in_verl.router import StickyRouter
from sftrl_ext.rollout.episode_client import EpisodeClient


class Calls:
    """An object whose methods are called as those of a Ray actor; keeps their names."""

    def __init__(self, target: object) -> None:
        self._target = target
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> SimpleNamespace:
        method: Callable[..., Any] = getattr(self._target, name)

        def remote(*args: Any, **kwargs: Any) -> asyncio.Future[Any]:
            self.calls.append(name)
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            done.set_result(method(*args, **kwargs))
            return done

        return SimpleNamespace(remote=remote)


class Server:
    """Answers with its own number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def generate(self, **unused: Any) -> TokenOutput:
        return TokenOutput(token_ids=[self._number])


def test_an_episode_asks_the_router_once_and_releases_its_server_once() -> None:
    servers = {name: Calls(Server(number)) for number, name in enumerate("ab")}
    router = Calls(StickyRouter(servers))
    rollout = SimpleNamespace(name="hf", full_determinism=False)
    config = cast(Any, SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout)))

    async def run() -> list[int]:
        client = EpisodeClient.of(LLMServerClient(config, cast(Any, router)))
        answers: list[int] = []
        for episode in ("x", "y", "x", "x"):
            output = await client.generate(episode, prompt_ids=[1], sampling_params={})
            answers += output.token_ids
        assert router._target.get_total_inflight() == 2
        for episode in ("x", "y", "never"):
            client.end(episode)
        return answers

    assert asyncio.run(run()) == [0, 1, 0, 0]
    assert router.calls.count("acquire_server") == 2
    assert router.calls.count("release_server") == 2
    assert router._target.get_total_inflight() == 0
