"""Tasks of inspect-ai: ``sftrl/<task>`` for every registered task.

``inspect eval sftrl/<task> -T split=rule_ood --model ..`` plays the rows that ``sftrl data rl --eval`` builds
for the same options, with the messages, the limit per response and the seeds of ``sftrl eval``: a server that
heeds seeds gives both the same episodes. The entry point group ``inspect_ai`` names this module.
"""

from __future__ import annotations

from typing import Any

from inspect_ai import Task, task
from inspect_ai._util.registry import RegistryInfo, registry_add, registry_info
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, get_model, messages_from_openai
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import TASKS, make_episode
from sftrl_ext.envs.base import facts_text, parse_facts
from sftrl_ext.experiments.evaluation.evaluate import turn_seed
from sftrl_ext.experiments.evaluation.one_model.endpoint import wire_message
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest
from sftrl_ext.plugins import load_plugins
from sftrl_ext.rollout.messages import Completion, DialogueTooLong, play_messages

NAMESPACE = "sftrl"
"""First part of the tasks' names; the decorator of inspect-ai takes the package's."""


@solver
def play_episode(response_seed: int) -> Solver:
    """Play the episode of a sample to its end."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        row = state.metadata

        async def complete(messages: list[dict[str, Any]], turn: int) -> Completion:
            dialogue = await messages_from_openai([wire_message(message) for message in messages])
            config = GenerateConfig(seed=turn_seed(response_seed, row["split"], row["index"], turn))
            state.output = await get_model().generate(dialogue, config=config)
            if state.output.stop_reason == "model_length":
                raise DialogueTooLong("the dialogue does not fit into the model's context")
            return Completion(state.output.completion)

        played = await play_messages(make_episode(parse_facts(row["facts"], "facts")), complete)
        state.messages = await messages_from_openai(played.messages)
        numbers = {
            "solved": float(played.solved),
            "return": sum(step.reward for step in played.steps),
            "attempts": float(len(played.steps)),
        }
        state.store.set("episode", {"value": {**played.metrics, **numbers}, "explanation": played.error})
        return state

    return solve


@scorer(metrics={"*": [mean(), stderr()]})
def episode_score() -> Scorer:
    """Success, return, attempts, and the task's own numbers of an episode."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(**state.store.get("episode"))

    return score


def _register(name: str) -> None:
    def episodes(data: str = "", response_seed: int = EvalRequest.seed, **options: Any) -> Task:
        """Rows of ``data``, or built from ``options`` (see `find_rows`), played with ``response_seed``."""
        chosen = find_rows(data, task=name, **options)
        samples = [
            Sample(
                input=make_episode(facts).messages()[-1]["content"],
                id=index,
                metadata={"facts": facts_text(facts), "index": index, "split": chosen.split},
            )
            for index, facts in enumerate(chosen.facts)
        ]
        return Task(
            dataset=MemoryDataset(samples, name=chosen.data_source),
            solver=play_episode(response_seed),
            scorer=episode_score(),
            config=GenerateConfig(
                temperature=EvalRequest.temperature, max_tokens=EvalRequest.max_turn_tokens
            ),
        )

    registered = task(name=name)(episodes)
    info = registry_info(registered)
    renamed = RegistryInfo(type=info.type, name=f"{NAMESPACE}/{name}", metadata=info.metadata)
    registry_add(registered, renamed)


load_plugins()
for _name in TASKS:
    _register(_name)
