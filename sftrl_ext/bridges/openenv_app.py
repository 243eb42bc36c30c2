"""Server and client of OpenEnv: ``python -m sftrl_ext.bridges.openenv_app rows.parquet``.

Each session has an episode of its own, so many may play at the same time. Pictures travel as data URLs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server import Action, Environment, Observation, State, create_app

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import Step
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.one_model.endpoint import data_url


class Answer(Action):
    """One response of the model."""

    response: str


class Dialogue(Observation):
    """Messages that wait for an answer, and the verdict on the one before."""

    index: int
    """Number of the row."""
    messages: list[dict[str, str]]
    images: list[str]
    """Pictures for the markers in ``messages``, in order."""
    solved: bool
    outcome: str | None = None
    feedback: str | None = None


class EpisodeServer(Environment[Answer, Dialogue, State]):
    """Plays rows: ``reset(index=..)`` chooses one, ``reset(seed=..)`` draws one."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._rows, self._index, self._state = rows, 0, State()
        self._episode = make_episode(rows[0])

    def reset(self, seed: int | None = None, episode_id: str | None = None, **options: Any) -> Dialogue:
        """Begin the episode of a row."""
        drawn = int(np.random.default_rng(seed).integers(len(self._rows)))
        index = options.get("index", drawn)
        if not isinstance(index, int) or not 0 <= index < len(self._rows):
            raise SftrlError(f"index is {index!r}; expected 0 to {len(self._rows) - 1}.")
        self._index, self._episode = index, make_episode(self._rows[index])
        self._state = State(episode_id=episode_id)
        return self._observe(None)

    def step(self, action: Answer, timeout_s: float | None = None, **options: Any) -> Dialogue:
        """Grade one response."""
        step = self._episode.submit(action.response)
        self._state.step_count += 1
        return self._observe(step)

    @property
    def state(self) -> State:
        """Id of the episode and number of its responses."""
        return self._state

    def _observe(self, step: Step | None) -> Dialogue:
        episode, verdict = self._episode, step.attempt.verdict if step else None
        return Dialogue(
            index=self._index,
            messages=episode.messages(),
            images=[data_url(image) for image in episode.images()],
            solved=episode.solved,
            outcome=verdict.outcome if verdict else None,
            feedback=verdict.feedback if verdict else None,
            reward=step.reward if step else None,
            done=episode.done,
        )


class EpisodeClient(EnvClient[Answer, Dialogue, State]):
    """Client: ``async with EpisodeClient(base_url=..) as env``, or ``.sync()``."""

    def _step_payload(self, action: Answer) -> dict[str, Any]:
        return {"response": action.response}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Dialogue]:
        observation = Dialogue(
            **payload["observation"], reward=payload.get("reward"), done=payload.get("done", False)
        )
        return StepResult(observation, observation.reward, observation.done)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(**payload)


def make_server(rows: Sequence[Mapping[str, Any]], sessions: int = 64) -> FastAPI:
    """Create the web application that serves rows to a number of sessions at the same time."""
    return create_app(partial(EpisodeServer, rows), Answer, Dialogue, "sftrl", max_concurrent_envs=sessions)


def main() -> None:
    """Serve the rows of a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="parquet file from `sftrl data rl`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--sessions", type=int, default=64, help="episodes that are played at the same time")
    args = parser.parse_args()
    uvicorn.run(make_server(find_rows(str(args.rows)).facts, args.sessions), host=args.host, port=args.port)


if __name__ == "__main__":
    main()
