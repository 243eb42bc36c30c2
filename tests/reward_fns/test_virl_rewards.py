from __future__ import annotations

import json

import pytest

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.virl.episode import PlaySettings, make_facts
from sftrl_ext.envs.virl.routes import Milestone, Route
from sftrl_ext.envs.virl.track import lay_track
from sftrl_ext.reward_fns import compute_score, turn_reward

ROUTE = Route(0, (40.7, -74.0), 0.0, (Milestone((40.701, -74.0), 0.0, "north", "Cafe is on your left"),))
FACTS = make_facts(lay_track(ROUTE))
TRUTH = json.dumps(FACTS)


def _answer(observation, action):
    return json.dumps({"current observation": observation, "current instruction": "1.", "action": action})


RESPONSES = {
    "correct": _answer("No landmarks nearby", "turn_direction(north)"),
    "correct, not seen": _answer("Cafe is on your left", "turn_direction(north)"),
    "wrong_action": _answer("No landmarks nearby", "stop()"),
    "wrong_observation": _answer("An intersection", "stop()"),
    "unparsable": "I give up",
}


@pytest.mark.parametrize(
    ("reward", "scores"),
    [
        (None, [1, 1, -1, -1.5, -1]),
        ("virl_outcome", [1, 1, -1, -1.5, -1]),
        ("binary", [1, 1, 0, 0, 0]),
        ("virl_format", [1, 1, 1, 1, 0]),
        ("virl_landmarks", [1, 0, 1, 0, 0]),
    ],
)
@pytest.mark.parametrize("source", ["virl_l/id", "virl_vl/visual_ood"])
def test_each_reward_on_each_outcome(reward, scores, source):
    for text, score in zip(RESPONSES.values(), scores, strict=True):
        result = compute_score(source, text, TRUTH, {}, reward=reward)
        assert result == {"score": score, "acc": float("turn" in text)}


def test_the_penalty_is_a_setting():
    for penalty in (-1.0, -0.25):
        facts = make_facts(lay_track(ROUTE), PlaySettings(exceeded_penalty=penalty))
        episode = make_episode(facts)
        steps = [episode.submit(RESPONSES[name]) for name in ("correct", "wrong_action", "wrong_action")]
        assert [turn_reward(step, facts, "virl_l/id") for step in steps] == [1, -1, -1 + penalty]
