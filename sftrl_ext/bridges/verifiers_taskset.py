"""Taskset and environment of verifiers (v1 API), exported as ``sftrl-rows`` by ``examples/environments_hub``.

The episode takes the user's part: it opens every dialogue with its own messages and answers with its
feedback. A task that rebuilds its prompt on the way opens a new interaction there, with a trace of its own.
Each turn is a reward of its trace, ``turn_1``, ``turn_2``, .., whose sum is the return.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import Episode, Step, facts_text, parse_facts
from sftrl_ext.experiments.evaluation.one_model.endpoint import wire_message
from sftrl_ext.rollout.tokens import with_images

__all__ = ["EpisodeEnv", "EpisodeTaskset"]


class RowsConfig(vf.TasksetConfig):
    """Rows of a taskset: those of a file, or built for a task and a split."""

    data: str = ""
    """Parquet file from ``sftrl data rl``; the other fields are then left out."""
    kind: str = ""
    """Registered task to build rows of."""
    split: str = "id"
    rows: int = 100
    seed: int = 0
    train: bool = False
    """Build rows of the training stream."""
    options: dict[str, Any] = {}
    """Further options of `find_rows`."""


class EpisodeData(vf.TaskData):
    """Facts of one row; its prompt comes from the episode, when it is played."""

    facts: str


class EpisodeTask(vf.Task[EpisodeData, vf.State, vf.TaskConfig]):
    """One row."""


class EpisodeEnvConfig(vf.EnvConfig):
    """One agent, without tools, so without a sandbox."""

    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})


class EpisodeTaskset(vf.Taskset[EpisodeTask, RowsConfig]):
    """Rows of a split."""

    def load(self) -> Iterator[EpisodeTask]:
        """Yield the rows in their order."""
        config = self.config
        built = {"split": config.split, "rows": config.rows, "seed": config.seed, **config.options}
        chosen = find_rows(config.data, task=config.kind, train=config.train, **built)
        for index, facts in enumerate(chosen.facts):
            name = f"{chosen.data_source}#{index}"
            yield EpisodeTask(EpisodeData(name=name, facts=facts_text(facts)), config.task)


class EpisodeEnv(vf.Env[EpisodeEnvConfig]):
    """Plays the episode of a row against one agent."""

    async def run(self, task: EpisodeTask, agents: Any) -> None:
        """Play until the episode or an agent's limit ends it."""
        episode = make_episode(parse_facts(task.data.facts, "facts"))
        while not episode.done:
            async with agents.player.interaction(task) as interaction:
                steps = await _play_prompt(episode, interaction)
            for turn, step in enumerate(steps, start=1):
                interaction.trace.record_reward(f"turn_{turn}", step.reward)
            interaction.trace.record_metrics({**episode.metrics(), "solved": float(episode.solved)})
            if not steps or not (steps[-1].done or steps[-1].new_prompt):
                return  # the agent's limit ended the dialogue


async def _play_prompt(episode: Episode, interaction: Any) -> list[Step]:
    """Play one dialogue to its end, or to that of the agent."""
    opening = [wire_message(message) for message in with_images(episode.messages(), episode.images())]
    segment = await interaction.turn(opening)
    steps: list[Step] = []
    while not segment.terminated:
        steps.append(episode.submit(segment.last_reply))
        if steps[-1].done or steps[-1].new_prompt:
            break
        segment = await interaction.turn(steps[-1].reply)
    return steps
