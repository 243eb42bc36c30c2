"""Plausible wrong answers at a point of a route: what a try that failed may have looked like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sftrl_ext.envs.virl.episode import NavigationEpisode
from sftrl_ext.envs.virl.rail import ACTION_SPACES, FORWARD, STOP, turn_action

_NEAR, _OTHER, _PLAIN = 4, 2, 1
"""Relative frequencies of mistakes: the right form with a wrong word; going on instead of turning, or turning
instead of going on; an action of the other action space, or stopping too early."""


def wrong_answers(episode: NavigationEpisode, rng: np.random.Generator, tries: int) -> Iterator[str]:
    """Answers at the current point with another action; the observation is wrong too in one of four.

    Args:
        episode: The walk.
        rng: Where the randomness comes from.
        tries: How many to give, all different while there are that many.
    """
    point, template = episode.point, episode.template
    space = episode.settings.action_space
    other = "relative" if space == "absolute" else "absolute"
    turning = point.action not in (FORWARD, STOP)
    chances: dict[str, float] = {}
    for word in ACTION_SPACES[space]:
        chances[turn_action(word)] = _NEAR if turning else _OTHER / 4
    for word in ACTION_SPACES[other]:
        chances.setdefault(turn_action(word), _PLAIN / len(ACTION_SPACES[other]))
    chances[FORWARD] = _OTHER * 2
    chances[STOP] = _PLAIN
    del chances[point.action]
    weights = np.array(list(chances.values()))
    actions = list(chances)
    order = rng.choice(len(actions), size=min(tries, len(actions)), replace=False, p=weights / weights.sum())
    sentence = template.sentences(episode.rail.turns)[point.instruction]
    for index in order.tolist():
        observation = point.observation
        if rng.random() < 0.25:
            note = f"; {template.note}"
            observation = observation.removesuffix(note) if observation.endswith(note) else observation + note
        yield template.answer(observation, sentence, actions[index])
