"""Reward functions by name and by data source, and the score function verl calls.

A reward function gets what followed from one response and the facts of the episode, and gives a number (or a
dict with ``score`` and further numbers)::

    @register_reward("brevity", "gp_l/*")
    def brevity(step: Step, facts: Facts) -> float:
        return float(step.attempt.verdict.correct) - 0.001 * len(step.attempt.response)

The first key is a name to select it by (``reward="brevity"``); keys with ``/`` are data sources it is the
default of, ``*`` standing for anything. The most specific pattern wins. One registry serves the rollout,
which scores every turn (`turn_reward`), and verl's reward managers and ``main_eval`` (`compute_score`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from sftrl_ext.envs import Step, make_episode, parse_facts
from sftrl_ext.envs.task import task_of_source
from sftrl_ext.errors import Registry, SftrlError, unknown_name

Facts = Mapping[str, Any]
"""Mapping that rebuilds the episode; see `sftrl_ext.envs.make_episode`."""

RewardFn = Callable[[Step, Facts], "float | dict[str, float]"]
"""A reward function."""

F = TypeVar("F", bound=RewardFn)


class _Rewards(Registry[RewardFn]):
    """A registry in which a function may take its own place again: verl may load a user's file twice."""

    def add(self, name: str, item: RewardFn) -> None:
        old = self._items.get(name)
        if old is not None and _origin(old) == _origin(item):
            self._items[name] = item
        super().add(name, item)


def _origin(function: RewardFn) -> tuple[str, str]:
    code = getattr(function, "__code__", None)
    return getattr(code, "co_filename", repr(function)), getattr(function, "__qualname__", "")


REWARDS: Registry[RewardFn] = _Rewards("reward function")
"""Names and data source patterns to reward functions."""


def register_reward(*keys: str) -> Callable[[F], F]:
    """Decorate a reward function to file it under names and data source patterns.

    Raises:
        SftrlError: if there is no key, or another function has one of them.
    """
    if not keys or not all(isinstance(key, str) for key in keys):
        raise SftrlError("register_reward needs a name or a data source pattern, such as 'gp_l/*'.")

    def keep(function: F) -> F:
        for key in keys:
            REWARDS.add(key, function)
        return function

    return keep


def find_reward(data_source: str, reward: str | None = None) -> RewardFn:
    """The reward function of a name, or else of a data source, or else of any task: the verifier's grade.

    Args:
        data_source: The row's ``data_source``.
        reward: Name to select by; None for the data source's default.

    Raises:
        SftrlError: if nothing is registered for it.
    """
    if reward is not None:
        return REWARDS[reward]
    if data_source in REWARDS:
        return REWARDS[data_source]
    patterns = [key for key in REWARDS if "/" in key and fnmatchcase(str(data_source), key)]
    if not patterns and task_of_source(data_source) is not None:
        return REWARDS["outcome"]
    if not patterns:
        raise unknown_name("data source", data_source, [key for key in REWARDS if "/" in key])
    return REWARDS[max(patterns, key=lambda key: (len(key.replace("*", "")), key))]


def score_step(step: Step, facts: Facts, data_source: str, reward: str | None = None) -> dict[str, float]:
    """Score one turn.

    Returns:
        ``score``, ``acc`` (1.0 if the response is correct), and what the reward function adds.

    Raises:
        SftrlError: if there is no such reward function, or it gives something that is no reward.
    """
    name = reward or data_source
    result = find_reward(data_source, reward)(step, facts)
    extra = dict(result) if isinstance(result, Mapping) else {"score": result}
    if "score" not in extra:
        raise SftrlError(
            f"reward function for {name!r} gave the keys {', '.join(extra)}; expected 'score' among them."
        )
    if "reward" in extra:
        raise SftrlError(f"reward function for {name!r} gave the key 'reward', which verl keeps for itself.")
    scores = {"score": 0.0, "acc": float(step.attempt.verdict.correct)}
    for key, value in extra.items():
        try:
            scores[key] = float(value)
        except (TypeError, ValueError):
            raise SftrlError(
                f"reward function for {name!r}: {key!r} is {value!r}, expected a number."
            ) from None
    return scores


def turn_reward(step: Step, facts: Facts, data_source: str, reward: str | None = None) -> float:
    """The reward of one turn; what the rollout puts on the turn's last token. See `score_step`."""
    return score_step(step, facts, data_source, reward)["score"]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Facts,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: str | None = None,
    **kwargs: Any,
) -> float | dict[str, float]:
    """Score one response, in verl's signature (``reward.custom_reward_function.path=pkg://sftrl_ext.reward_fns``).

    Args:
        data_source: The row's ``data_source``.
        solution_str: The response. It is graded as the first attempt of an episode.
        ground_truth: JSON text of the episode's facts, or the facts.
        extra_info: The row's ``extra_info``. Reward managers pass it; ``main_eval`` does not.
        reward: Name of the reward function (``reward.custom_reward_function.reward_kwargs.reward``); None for
            the data source's default.
        **kwargs: Ignored; verl passes more to some functions.

    Returns:
        A dict with ``score`` and ``acc`` if ``extra_info`` is given, which reward managers log; else the
        score alone, because ``main_eval`` averages what it gets.

    Raises:
        SftrlError: if the ground truth is not the facts of an episode, or there is no such reward function.
    """
    facts = ground_truth
    if not isinstance(facts, Mapping):
        facts = parse_facts(ground_truth, f"ground_truth of a {data_source!r} row")
    scores = score_step(make_episode(facts).submit(solution_str), facts, data_source, reward)
    return scores["score"] if extra_info is None else scores
