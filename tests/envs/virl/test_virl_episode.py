from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virl_examples import CAFE, ROUTE, answer, map_along

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.virl.episode import NavigationEpisode, PlaySettings, make_facts, track_of
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.track import lay_track
from sftrl_ext.errors import SftrlError

TRACK = lay_track(ROUTE)


def walk(**settings):
    return NavigationEpisode(make_facts(TRACK, PlaySettings(**{"drop_rate": 0.5} | settings), 7))


@pytest.mark.parametrize("profile", ["exact", "authors"])
@pytest.mark.parametrize("action_space", ["absolute", "relative"])
def test_the_expert_walks_the_whole_route(profile, action_space):
    walked = walk(profile=profile, action_space=action_space)
    points = walked.rail.points
    for number, point in enumerate(points):
        assert (walked.position, walked.point) == (number, point)
        step = walked.submit(walked.expert_answer())
        last = number == len(points) - 1
        assert (step.reward, step.terminated, step.truncated, step.new_prompt) == (1, last, False, not last)
        assert step.reply is None
    assert walked.solved and walked.done
    numbers = walked.metrics()
    count = float(len(points))
    for key in ("points", "points_solved", "first_tries", "attempts", "correct_actions", "responses"):
        assert numbers[key] == count
    for key in ("solved", "progress", "step_accuracy", "recognized", "outcome/correct"):
        assert numbers[key] == 1
    with pytest.raises(RuntimeError, match="over"):
        walked.submit("x")


def test_a_wrong_action_is_not_executed():
    walked = walk()
    first = walked.messages()
    step = walked.submit("stop()?")
    assert (step.reward, step.done, step.new_prompt, walked.position) == (-1, False, False, 0)
    assert step.attempt.verdict.feedback in step.reply
    assert "Attempts left here: 1" in step.reply
    assert walked.messages() == [
        *first,
        {"role": "assistant", "content": "stop()?"},
        {"role": "user", "content": step.reply},
    ]
    step = walked.submit(walked.expert_answer())
    assert (step.reward, step.new_prompt, walked.position, walked.tries) == (1, True, 1, 0)
    (message,) = walked.messages()
    assert message["role"] == "user"
    assert "stop()?" not in message["content"]
    assert "A_1: turn_direction(north)\nO_2: " in message["content"]
    assert message["content"].count("O_") == 2


def test_failures_at_one_point_end_the_route():
    walked = walk()
    walked.submit("x")
    walked.submit(walked.expert_answer())
    steps = [walked.submit("x"), walked.submit(answer("an intersection", "stop()"))]
    assert [step.reward for step in steps] == [-1, -1.5 - 1]
    assert [(step.truncated, step.terminated, step.reply is None) for step in steps] == [
        (False, False, False),
        (True, False, True),
    ]
    assert walked.done and not walked.solved
    assert walked.messages()[-1]["role"] == "assistant"
    numbers = walked.metrics()
    assert numbers["solved"] == 0
    assert (numbers["points_solved"], numbers["first_tries"], numbers["responses"]) == (1, 0, 4)
    assert numbers["step_accuracy"] == 0.25
    assert numbers["reward_total"] == -1 + 1 - 1 - 2.5
    assert numbers["outcome/unparsable"] == 0.5


def test_settings_of_the_end():
    walked = walk(max_attempts=1, exceeded_penalty=-3)
    assert walked.submit("x").reward == -4
    walked = walk(max_attempts=4)
    assert [walked.submit("x").truncated for _ in range(4)] == [False, False, False, True]


def test_the_keys_of_metrics_are_always_the_same():
    fresh, half = walk(), walk(profile="authors")
    half.submit("x")
    done = walk()
    while not done.done:
        done.submit(done.expert_answer())
    assert fresh.metrics().keys() == half.metrics().keys() == done.metrics().keys()
    assert all(isinstance(number, float) for number in done.metrics().values())
    assert fresh.metrics()["step_accuracy"] == 0


def test_facts_rebuild_the_episode_without_any_file():
    track = track_of(ROUTE, PlaySettings(), map_along())
    facts = make_facts(track, PlaySettings(action_space="relative", template="compact"), 3)
    text = facts_text(facts)
    one, two = make_episode(json.loads(text)), make_episode(facts)
    assert isinstance(one, NavigationEpisode)
    assert one.rail == two.rail and one.messages() == two.messages()
    assert one.facts == facts
    assert "street_views" not in facts and "image_size" not in facts
    rails = {len(make_episode(facts | {"rail_seed": seed}).rail.points) for seed in range(20)}
    assert len(rails) > 2
    assert NavigationEpisode({"route": track.facts()}).settings == PlaySettings()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rute": 1}, "Did you mean 'route'"),
        ({"rail_seed": -1}, "'rail_seed' is -1"),
        ({"rail_seed": "1"}, "'rail_seed' is '1'"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"max_attempts": True}, "max_attempts is True"),
        ({"exceeded_penalty": "x"}, "exceeded_penalty is 'x'"),
        ({"drop_rate": 2}, "drop_rate is 2"),
        ({"action_space": "abs"}, "Did you mean"),
        ({"profile": "exakt"}, "Did you mean 'exact'"),
        ({"modality": "video"}, "unknown modality"),
        ({"modality": "image"}, "needs street_views"),
        ({"modality": "image", "street_views": "/x"}, "a waypoint without a panorama"),
        ({"modality": "image", "street_views": "/x", "image_size": 0}, "image_size is 0"),
        ({"street_views": "/x"}, "street_views is given with modality 'text'"),
        ({"image_size": 5}, "image_size is given with modality 'text'"),
        ({"route": None}, "the fact 'route' is None"),
    ],
)
def test_what_is_wrong_in_facts_is_named(change, words):
    with pytest.raises(SftrlError, match=words):
        make_episode(make_facts(TRACK) | change)
    with pytest.raises(SftrlError, match="the fact 'route' is missing; found task"):
        make_episode({"task": "virl"})


def test_images_need_a_map_and_a_folder(tmp_path):
    with_images = PlaySettings(modality="image", street_views=str(tmp_path))
    assert with_images.image_size == 1200
    with pytest.raises(SftrlError, match="needs gps_to_pano"):
        track_of(ROUTE, with_images)
    with pytest.raises(SftrlError, match="has no picture of its panorama 'pano0'"):
        track_of(ROUTE, with_images, map_along())
    with pytest.raises(SftrlError, match="no such folder"):
        track_of(ROUTE, PlaySettings(modality="image", street_views=str(tmp_path / "x")), map_along())
    for pano in map_along().places.values():
        (tmp_path / f"{pano}.jpg").touch()
    track = track_of(ROUTE, with_images, map_along())
    walked = NavigationEpisode(make_facts(track, with_images))
    (message,) = walked.messages()
    assert message["content"].startswith("<image>\n")
    assert "No landmarks nearby" not in message["content"]
    assert walked.facts["street_views"] == str(tmp_path)
    gone = map_along().places
    (tmp_path / "pano5.jpg").unlink()
    with pytest.raises(SftrlError, match="no picture of its panorama 'pano5'"):
        track_of(ROUTE, with_images, PanoramaMap({**gone}), points_per_leg=20)
    left = track_of(ROUTE, with_images, PanoramaMap({**gone}), 20, "skip")
    assert "pano5" not in {waypoint.pano_id for waypoint in left.waypoints}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["right", "wrong", "x", CAFE]), max_size=40), st.integers(1, 3))
def test_any_play_ends_as_it_should(moves, max_attempts):
    walked = walk(max_attempts=max_attempts)
    failed = 0
    for move in moves:
        if walked.done:
            break
        before = walked.position
        step = walked.submit(walked.expert_answer() if move == "right" else move)
        failed = 0 if move == "right" else failed + 1
        assert step.truncated == (failed == max_attempts)
        assert step.done == walked.done
        assert (step.reply is None) == (step.done or step.new_prompt)
        assert walked.position - before == step.new_prompt
        if not step.done:
            assert walked.messages()[-1]["role"] == "user"
            assert len(walked.messages()) == 1 + 2 * failed
    assert walked.solved == (walked.metrics()["progress"] == 1)


def test_an_episode_may_begin_at_any_point():
    whole = walk()
    for first in range(len(whole.rail.points)):
        facts = make_facts(TRACK, PlaySettings(drop_rate=0.5), 7, first)
        begun = make_episode(json.loads(facts_text(facts)))
        assert begun.facts == facts and ("first_point" in facts) == (first > 0)
        assert begun.messages() == whole.messages()
        whole.submit(whole.expert_answer())
        while not begun.done:
            begun.submit(begun.expert_answer())
        assert begun.solved and begun.metrics()["points"] == len(whole.rail.points) - first
        assert begun.metrics()["progress"] == begun.metrics()["step_accuracy"] == 1


@pytest.mark.parametrize("first", [-1, 99, True, "1", 0.0])
def test_a_wrong_first_point_is_refused(first):
    with pytest.raises(SftrlError, match="first_point"):
        make_episode({**make_facts(TRACK), "first_point": first})
