"""Countdown as a registered task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Episode
from sftrl_ext.envs.countdown import TASK
from sftrl_ext.envs.task import EpisodeLengths, TaskSpec, register_task
from sftrl_ext.envs.task_config import TaskConfig


def _episode(facts: Mapping[str, Any]) -> Episode:
    from sftrl_ext.envs.countdown.episode import CountdownEpisode  # a recipe needs no grader

    return CountdownEpisode(facts)


def _lengths(config: TaskConfig) -> EpisodeLengths:
    """Words and signs of training rows, in `compact` digits apart, and eight tokens of a chat template."""
    if config.template == "compact":
        return EpisodeLengths(prompt=20.0, answer=21.0, feedback=10.0)
    return EpisodeLengths(prompt=90.0, answer=20.0, feedback=33.0)


def _solution(details: Mapping[str, Any]) -> str:
    from sftrl_ext.envs.general_points.distinct import solution_key

    return solution_key(str(details["formula"]))


def _solutions(facts: Mapping[str, Any]) -> int:
    from sftrl_ext.envs.countdown.numbers import solve
    from sftrl_ext.envs.general_points.distinct import solution_key

    formulas = solve(facts["numbers"], facts["target"], facts.get("use", "all"))
    return len({solution_key(formula) for formula in formulas})


COUNTDOWN = register_task(
    TaskSpec(
        name=TASK,
        episode=_episode,
        rows="data_prep.countdown_rows:CountdownRows",
        titles={TASK: "Countdown"},
        ability="arithmetic",
        wrong_answers=("", '{"formula": "1+"}', '{"formula": "1+1"}'),
        no_working="its answers are a formula alone",
        lengths=_lengths,
        split_titles={
            "ood_more_numbers": "OOD: one number more",
            "ood_large_targets": "OOD: larger targets",
        },
        solution=_solution,
        solutions=_solutions,
    )
)
