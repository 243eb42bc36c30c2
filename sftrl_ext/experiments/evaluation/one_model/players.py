"""Players of `sftrl eval`: an engine of this process, or a model behind an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.engines import open_engine
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay, play_one, turn_seed
from sftrl_ext.experiments.evaluation.one_model.endpoint import Endpoint, EndpointOptions, Unanswered
from sftrl_ext.experiments.evaluation.one_model.episode_log import Place
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest, torch_device
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.rollout.messages import Completion, play_messages
from sftrl_ext.rollout.player import Limits, PlayedEpisode

PlayPlace = Callable[[int, int], Awaitable[PlayedEpisode]]
"""``await play(set, instance)``."""


@asynccontextmanager
async def local_player(
    request: EvalRequest, sets: Sequence[EvalSet], folder: Path
) -> AsyncIterator[PlayPlace]:
    """Play by an engine of this process, token by token."""
    device = torch_device(request.device) if request.engine == "hf" else "cpu"
    engine = open_engine(request.engine, folder, dtype=request.dtype, rows=request.batch_size, device=device)
    turn = request.max_turn_tokens
    attempts = max(int(facts.get("max_attempts", 1)) for chosen in sets for facts in chosen.facts)
    limits = Limits(prompt=4096, response=attempts * (turn + 256), turn=turn)
    settings = EvalPlay(limits, request.temperature, request.seed, request.top_p, request.top_k)
    yield lambda number, index: play_one(settings, sets[number], index, engine)


@asynccontextmanager
async def endpoint_player(
    request: EvalRequest, options: EndpointOptions, sets: Sequence[EvalSet]
) -> AsyncIterator[PlayPlace]:
    """Play by requests to an endpoint."""
    async with Endpoint(options, request.model) as endpoint:

        async def play(number: int, index: int) -> PlayedEpisode:
            chosen = sets[number]

            async def complete(messages: list[dict[str, Any]], turn: int) -> Completion:
                return await endpoint.complete(
                    messages,
                    **request.sampling,
                    max_tokens=request.max_turn_tokens,
                    seed=turn_seed(request.seed, chosen.split, index, turn),
                )

            return await play_messages(make_episode(chosen.facts[index]), complete)

        yield play


async def play_places(
    player: AbstractAsyncContextManager[PlayPlace],
    todo: Sequence[Place],
    finish: Callable[[Place, PlayedEpisode], None],
    at_once: int,
) -> list[Unanswered]:
    """Play instances, a bounded number at the same time, until all are done.

    Args:
        player: What plays them.
        todo: Which ones.
        finish: Called for each that is done.
        at_once: Most at the same time.

    Returns:
        Why some could not be played.

    Raises:
        Unanswered: if so many could not be played one after the other that the server must be out of order.
        SftrlError: if the engine or the task fails.
    """
    gate = asyncio.Semaphore(at_once)
    failed: list[Unanswered] = []
    in_a_row = 0

    async with player as play:

        async def one(key: Place) -> None:
            nonlocal in_a_row
            async with gate:
                try:
                    played = await play(*key)
                except Unanswered as error:
                    failed.append(error)
                    in_a_row += 1
                    if in_a_row >= max(at_once, 3):
                        raise
                    return
                except SftrlError:
                    raise
                except Exception as error:
                    number, index = key
                    raise SftrlError(
                        f"row {index} of data file {number + 1} could not be played: "
                        f"{type(error).__name__}: {error}"
                    ) from error
            in_a_row = 0
            finish(key, played)

        tasks = [asyncio.ensure_future(one(key)) for key in todo]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return failed
