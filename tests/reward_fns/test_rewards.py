from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest

import sftrl_ext.reward_fns.registry as registry
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import load_plugins
from sftrl_ext.reward_fns import (
    REWARDS,
    compute_score,
    find_reward,
    register_reward,
    turn_reward,
)

FACTS = make_facts(["6", "4", "A", "A"])
TRUTH = json.dumps(FACTS)


def _answer(formula: str) -> str:
    return json.dumps({"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": formula})


RIGHT = _answer("6*4*1*1=24")
RESPONSES = {
    "correct": RIGHT,
    "wrong_value": _answer("6*4+1+1=24"),
    "wrong_numbers": _answer("6*4*1=24"),
    "illegal_formula": _answer("6*(4*1*1=24"),
    "unparsable": "I give up",
}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(REWARDS, "_items", dict(REWARDS._items))


@pytest.mark.parametrize(
    ("reward", "scores"),
    [
        (None, [5, -1, -2, -3, -3]),
        ("outcome", [5, -1, -2, -3, -3]),
        ("binary", [1, 0, 0, 0, 0]),
        ("format_only", [1, 1, 1, 1, 0]),
        ("recognition", [1, 1, 1, 1, 0]),
        ("partial_credit", [1, 0.5 + 0.3 / 3, 0.2 + 0.3 * 0.75, 0.1, 0]),
    ],
)
def test_each_reward_on_each_outcome(reward, scores):
    for text, score in zip(RESPONSES.values(), scores, strict=True):
        result = compute_score("gp_l/rule_ood", text, TRUTH, {}, reward=reward)
        assert result["score"] == pytest.approx(score)
        assert result["acc"] == float(text == RIGHT)
        assert set(result) == {"score", "acc"}


def test_partial_credit_grows_towards_a_solution():
    steps = [
        "I give up",
        _answer("6*("),
        _answer("9*9"),
        _answer("6*4"),
        _answer("6+4+1+1"),
        _answer("6*4-1/1"),
        RIGHT,
    ]
    scores = [compute_score("gp_l/id", text, TRUTH, reward="partial_credit") for text in steps]
    assert scores == sorted(set(scores))


def test_partial_credit_survives_huge_and_absent_values():
    for formula in ("9" * 3000 + "*" + "9" * 500, "6/(1-1)+4", "6*4/(1-1)"):
        assert 0 <= compute_score("gp_l/id", _answer(formula), TRUTH, reward="partial_credit") < 1


def test_three_positional_arguments_give_a_number_that_main_eval_can_average():
    assert np.mean([compute_score("gp_l/id", text, TRUTH) for text in RESPONSES.values()]) == pytest.approx(
        -0.8
    )


def test_it_is_called_as_verls_reward_managers_do():
    result = compute_score(
        data_source="gp_l/id",
        solution_str=RIGHT,
        ground_truth=TRUTH,
        extra_info={"index": 3, "num_turns": 2},
        reward_router_address=None,
    )
    assert result == {"score": 5.0, "acc": 1.0}
    assert all(isinstance(value, float) for value in result.values())


def test_turn_rewards_carry_the_penalty_only_where_the_reward_has_one():
    episode = make_episode(FACTS | {"max_attempts": 2})
    steps = [episode.submit(RESPONSES["wrong_value"]) for _ in range(2)]
    assert [turn_reward(step, FACTS, "gp_l/id") for step in steps] == [-1, -2]
    assert [turn_reward(step, FACTS, "gp_l/id", "binary") for step in steps] == [0, 0]


def test_the_most_specific_pattern_wins():
    @register_reward("gp_l/rule_*")
    def some(step, facts):
        return 7

    @register_reward("gp_l/rule_ood")
    def one(step, facts):
        return 8

    assert compute_score("gp_l/id", RIGHT, TRUTH) == 5
    assert compute_score("gp_l/rule_ood_unseen", RIGHT, TRUTH) == 7
    assert compute_score("gp_l/rule_ood", RIGHT, TRUTH) == 8


def test_a_reward_from_outside_the_package(tmp_path):
    file = tmp_path / "my_rewards.py"
    file.write_text(
        textwrap.dedent(
            """\
            from sftrl_ext.reward_fns import compute_score, register_reward


            @register_reward("brevity")
            def brevity(step, facts):
                verdict = step.attempt.verdict
                return {"score": float(verdict.correct) - 0.001 * len(step.attempt.response), "tries": 1}
            """
        )
    )
    assert len(file.read_text().splitlines()) < 10
    load_plugins([str(file)])
    result = compute_score("gp_l/id", RIGHT, TRUTH, {}, reward="brevity")
    assert result == {"score": pytest.approx(1 - 0.001 * len(RIGHT)), "acc": 1.0, "tries": 1.0}


def test_verl_loads_it_by_path_with_kwargs(tmp_path):
    pytest.importorskip("verl")
    omegaconf = pytest.importorskip("omegaconf")
    from verl.trainer.ppo.reward import get_custom_reward_fn

    file = tmp_path / "mine.py"
    file.write_text(
        "from sftrl_ext.reward_fns import compute_score, register_reward\n\n\n"
        "@register_reward('mine')\ndef mine(step, facts):\n    return 42\n"
    )
    for path, kwargs, score in (
        (str(file), {"reward": "mine"}, 42),
        (str(file), {"reward": "mine"}, 42),
        ("pkg://sftrl_ext.reward_fns", {"reward": "binary"}, 1),
        ("pkg://sftrl_ext.reward_fns", {}, 5),
    ):
        function = {"path": path, "name": "compute_score", "reward_kwargs": kwargs}
        config = omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}})
        function = get_custom_reward_fn(config)
        assert function("gp_l/id", RIGHT, TRUTH) == score
        call = {"data_source": "gp_l/id", "solution_str": RIGHT, "ground_truth": TRUTH, "extra_info": {}}
        assert function(**call) == {"score": score, "acc": 1.0}


@pytest.mark.slow
def test_verls_main_eval_averages_it():
    pytest.importorskip("verl")
    omegaconf = pytest.importorskip("omegaconf")
    from verl.trainer.main_eval import process_item

    function = {
        "path": "pkg://sftrl_ext.reward_fns",
        "name": "compute_score",
        "reward_kwargs": {"reward": "binary"},
    }
    config = omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}})
    facts = {"ground_truth": TRUTH}
    assert process_item._function(config, "gp_l/id", list(RESPONSES.values()), facts) == ("gp_l/id", 0.2)


def test_names_are_taken_once():
    @register_reward("mine")
    def mine(step, facts):
        return 1

    with pytest.raises(SftrlError, match="registered already"):
        register_reward("binary")(mine)
    with pytest.raises(SftrlError, match="needs a name"):
        register_reward()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reward": 1.0, "score": 1.0}, "the key 'reward', which verl keeps"),
        ({"acc": 1.0}, "expected 'score' among them"),
        ({"score": "high"}, "'score' is 'high', expected a number"),
        (None, "'score' is None, expected a number"),
    ],
)
def test_what_is_no_reward_is_named(given, words):
    register_reward("bad")(lambda step, facts: given)
    with pytest.raises(SftrlError, match=words):
        compute_score("gp_l/id", RIGHT, TRUTH, {}, reward="bad")


def test_wrong_inputs():
    with pytest.raises(SftrlError, match="Did you mean 'binary'"):
        find_reward("gp_l/id", "binery")
    with pytest.raises(SftrlError, match="unknown data source 'gsm8k'"):
        compute_score("gsm8k", "x", TRUTH)
    for truth in ("24", "{", None, "[1]"):
        with pytest.raises(SftrlError, match="expected the JSON text of an episode's facts"):
            compute_score("gp_l/id", "x", truth)
    assert registry.compute_score("gp_l/id", RIGHT, FACTS) == 5


IMAGE_FACTS = make_facts(["6S", "4S", "AC", "AC"], settings=PlaySettings(modality="image"))


@pytest.mark.parametrize(
    ("cards", "formula", "outcome", "recognition"),
    [
        (["A", "6", "4", "A"], "6*4*1*1=24", 5, 1),
        (["A", "6", "4", "A"], "6*4+1+1=24", -1, 1),
        (["A", "6", "4", "A"], "6*4=24", -2, 1),
        (["A", "6", "4", "2"], "6*4*1*1=24", -1.5, 0),
        (None, "6*4*1*1=24", -1.5, 0),
        (["A", "6", "4", "A"], None, -3, 1),
    ],
)
def test_rewards_of_images(cards, formula, outcome, recognition):
    text = json.dumps({"cards": cards, "formula": formula})
    assert compute_score("gp_vl/visual_ood", text, IMAGE_FACTS) == outcome
    assert compute_score("gp_vl/id", text, json.dumps(IMAGE_FACTS), reward="recognition") == recognition
    assert compute_score("gp_vl/id", text, IMAGE_FACTS, reward="binary") == float(outcome == 5)
    assert 0 <= compute_score("gp_vl/id", text, IMAGE_FACTS, reward="partial_credit") <= 1


def test_the_rewards_of_formulas_grade_countdown_too():
    facts = {"task": "countdown", "numbers": [44, 19, 35], "target": 98, "use": "any"}
    answers = ('{"formula": "44+19+35"}', '{"formula": "44+19"}', "no idea")
    scores = {
        reward: [compute_score("countdown/id", answer, facts, reward=reward) for answer in answers]
        for reward in ("outcome", "partial_credit", "format_only", "binary")
    }
    assert scores["outcome"] == [5.0, -1.0, -3.0]
    assert scores["partial_credit"] == [1.0, pytest.approx(0.4), 0.0]
    assert scores["format_only"] == [1.0, 1.0, 0.0] and scores["binary"] == [1.0, 0.0, 0.0]
