from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from virl_examples import ROUTE, answer, entry, map_along

import sftrl_ext.envs  # noqa: F401
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import write_routes
from sftrl_ext.errors import SftrlError

ID = "sftrl/VIRL-v0"


@pytest.fixture
def routes(tmp_path):
    path = tmp_path / "route_infos.json"
    path.write_text(json.dumps([[entry(), entry(init_heading=0), entry()], 3]))
    return str(path)


@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_gymnasiums_own_checker_passes_without_a_warning(routes, profile):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, routes=routes, action_space="relative", profile=profile, template="compact")
        check_env(env.unwrapped)


def test_the_public_surface(routes):
    env = gymnasium.make(
        ID,
        routes=routes,
        action_space="absolute",
        modality="text",
        profile="exact",
        drop_rate=0.5,
        points_per_leg=5,
        max_attempts=2,
        panoramas=None,
        gps_to_pano=None,
    )
    obs, info = env.reset(seed=0, options={"route_index": 2})
    assert obs["messages"][-1]["role"] == "user"
    rail = env.unwrapped.rail
    assert rail[0].geocode == (40.7, -74.0)
    assert (rail[0].heading, rail[0].action, rail[0].at_intersection) == (
        12,
        "turn_direction(northwest)",
        False,
    )
    assert (info["route_index"], info["point_index"], info["points"]) == (2, 0, len(rail))
    assert info["expected_action"] == rail[0].action
    assert info["observation"] == rail[0].observation == "No landmarks nearby"
    assert info["history"] == "O_1: No landmarks nearby\nA_1:"
    assert info["history"] in obs["messages"][-1]["content"]
    obs, reward, terminated, truncated, info = env.step(answer("an intersection", "stop()"))
    assert (reward, terminated, truncated, info["point_index"]) == (-1.5, False, False, 0)
    assert (info["outcome"], info["grade_reward"], info["solved"]) == ("wrong_observation", -1.5, False)
    assert info["feedback"] in obs["messages"][-1]["content"]
    assert (len(obs["messages"]), info["attempt"]) == (3, 1)
    for number in range(len(rail)):
        assert not terminated
        assert info["point_index"] == number
        obs, reward, terminated, truncated, info = env.step(answer("", info["expected_action"]))
        assert (reward, truncated, info["outcome"]) == (1, False, "correct")
        assert len(obs["messages"]) == (1 if not terminated else 4 if len(rail) == 1 else 2)
    assert terminated and info["solved"]
    assert env.observation_space.contains(obs)


def test_attempts_are_used_up(routes):
    env = gymnasium.make(ID, routes=routes)
    env.reset(seed=1)
    results = [env.step("?") for _ in range(2)]
    assert [result[1] for result in results] == [-1, -2]
    assert [result[3] for result in results] == [False, True]
    assert not any(result[2] for result in results)
    assert [result[4]["grade_reward"] for result in results] == [-1, -1]


def test_a_seed_gives_the_same_episode(routes):
    def episode(seed, options=None):
        env = gymnasium.make(ID, routes=routes)
        seen = [env.reset(seed=seed, options=options)]
        for _ in range(2):
            env.step(env.unwrapped.episode.expert_answer())
            seen.append((env.unwrapped.rail, env.unwrapped.episode.facts))
        return seen

    for options in (None, {"route_index": 1}):
        assert episode(5, options) == episode(5, options)
    assert len({str(episode(seed)[0]) for seed in range(12)}) > 3
    assert {episode(seed)[0][1]["route_index"] for seed in range(12)} == {0, 1, 2}


def test_no_global_random_state_is_read_or_written(routes):
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    env = gymnasium.make(ID, routes=routes)
    first = env.reset(seed=3)
    env.step("x")
    random.seed(2)
    np.random.seed(2)
    assert env.reset(seed=3) == first
    random.seed(1)
    np.random.seed(1)
    env.reset(seed=3)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


def test_without_a_seed_rails_differ(routes):
    env = gymnasium.make(ID, routes=routes)
    env.reset(seed=0, options={"route_index": 1})
    rails = {str(env.unwrapped.rail)}
    for _ in range(5):
        env.reset(options={"route_index": 1})
        rails.add(str(env.unwrapped.rail))
    assert len(rails) > 3


def test_points_move_to_panoramas(tmp_path):
    write_routes(tmp_path / "r.json", [ROUTE])
    map_along().save(tmp_path / "map.parquet")
    for places in (tmp_path / "map.parquet", map_along()):
        env = gymnasium.make(ID, routes=tmp_path / "r.json", gps_to_pano=places, drop_rate=0.0)
        env.reset(seed=0)
        known = map_along().places
        assert all(known[point.geocode] == point.pano_id for point in env.unwrapped.rail)
    with pytest.raises(SftrlError, match="route 0: the start at .* has no panorama"):
        gymnasium.make(ID, routes=[ROUTE], gps_to_pano=PanoramaMap({}))


def test_images_are_observed(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, pano in enumerate(map_along().places.values()):
        pixels = rng.integers(256, size=(32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((256, 128)).save(tmp_path / f"{pano}.jpg")
        (tmp_path / f"{pano}.metadata.json").write_text(json.dumps({"rotation": number}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(
            ID, routes=[ROUTE], modality="image", panoramas=tmp_path, gps_to_pano=map_along(), image_size=96
        )
        check_env(env.unwrapped)
    obs, info = env.reset(seed=4)
    (first,) = obs["images"]
    assert (first.mode, first.size) == ("RGB", (96, 96))
    assert obs["messages"][0]["content"].count("<image>") == 1
    first.paste((0, 0, 0), (0, 0, 96, 96))
    obs = env.step(answer("Corner Cafe", "stop()"))[0]
    assert obs["images"] == env.reset(seed=4)[0]["images"]
    while info["point_index"] < len(env.unwrapped.rail) - 1:
        seen = obs["images"]
        obs, _, _, _, info = env.step(env.unwrapped.episode.expert_answer())
        assert info["recognized"] and obs["images"] != seen
        assert sum(message["content"].count("<image>") for message in obs["messages"]) == 1
        assert (
            "; You stand at an intersection\nA" in obs["messages"][0]["content"].split("Four views")[-1]
        ) == (env.unwrapped.episode.point.at_intersection)
    obs, reward, _, _, info = env.step(answer("No landmarks nearby", "forward()"))
    assert (reward, info["outcome"], info["recognized"]) == (-1.5, "wrong_observation", False)
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"route_index": 9}, "there is no route 9; found 3 routes, 0 to 2"),
        ({"route": 1}, "Did you mean 'route_index'"),
        ({"route_index": "x"}, "there is no route 'x'"),
    ],
)
def test_what_is_wrong_in_options_is_named(routes, options, words):
    env = gymnasium.make(ID, routes=routes)
    with pytest.raises(SftrlError, match=words):
        env.reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"action_space": "relativ"}, "Did you mean 'relative'"),
        ({"modality": "image"}, "needs street_views"),
        ({"image_size": 3}, "image_size is given with modality 'text'"),
        ({"drop_rate": -1}, "drop_rate is -1"),
        ({"points_per_leg": -1}, "points_per_leg is -1"),
        ({"missing_panorama": "drop"}, "unknown missing_panorama"),
        ({"template": "defualt"}, "Did you mean 'default'"),
        ({"routes": []}, "routes is empty"),
        ({"routes": "/no/file.json"}, "/no/file.json: no such file"),
        ({"gps_to_pano": "/no/map.pkl"}, "/no/map.pkl: no such file"),
    ],
)
def test_what_is_wrong_in_settings_is_named(routes, settings, words):
    with pytest.raises(SftrlError, match=words):
        gymnasium.make(ID, **{"routes": routes} | settings)


def test_bad_routes_can_be_left_out(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([[entry(), 3, entry()], 3]))
    with pytest.raises(SftrlError, match="route 1: expected an object"):
        gymnasium.make(ID, routes=path)
    env = gymnasium.make(ID, routes=path, skip_bad=True)
    assert len(env.unwrapped.route_file.problems) == 1
    assert {env.reset(seed=seed)[1]["route_index"] for seed in range(10)} == {0, 2}


def test_reset_comes_first(routes):
    env = gymnasium.make(ID, routes=routes, disable_env_checker=True).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("x")


def test_text_needs_no_pillow(routes):
    code = (
        "import sys, gymnasium, sftrl_ext.envs;"
        f"gymnasium.make('{ID}', routes={routes!r}).reset(seed=0);"
        "assert not {'PIL', 'torch', 'pyarrow', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
