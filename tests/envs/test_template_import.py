"""Templates from a checkout: every text of prompts, answers and feedback, to the byte."""

from __future__ import annotations

import json

import pytest
from authors_checkout import FILES, write_checkout

from sftrl_ext.cli import main
from sftrl_ext.envs.general_points.episode import PlaySettings as CardSettings
from sftrl_ext.envs.general_points.episode import make_facts as card_facts
from sftrl_ext.envs.general_points.prompts import expert_answer, load_template
from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.template_import import write_templates
from sftrl_ext.envs.virl.episode import NavigationEpisode, PlaySettings, make_facts
from sftrl_ext.envs.virl.geo import offset
from sftrl_ext.envs.virl.prompts import load_template as load_route_template
from sftrl_ext.envs.virl.routes import Milestone, Route
from sftrl_ext.envs.virl.track import lay_track
from sftrl_ext.errors import SftrlError

START = (40.7, -74.0)
CORNER, PARK = offset(START, 0, 100), offset(offset(START, 0, 100), 90, 60)
ROUTE = Route(
    0, START, 350.0, (Milestone(CORNER, 0.0, "north", None), Milestone(PARK, 90.0, "east", "Cafe is near"))
)


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authors")
    write_templates(write_checkout(folder / "checkout"), folder / "out")
    return folder / "out"


def cards(templates, hand=("KS", "5S", "2S", "10S"), **changes):
    settings = {"profile": "authors", "template": str(templates / "general_points.yaml"), **changes}
    return make_episode(card_facts(hand, "face_11_12_13", settings=CardSettings(**settings)))


def route(templates, route=ROUTE, **changes):
    settings = {"profile": "authors", "template": str(templates / "virl.yaml"), "drop_rate": 1, **changes}
    return NavigationEpisode(make_facts(lay_track(route), PlaySettings(**settings)))


def test_prompts_of_cards(templates):
    [text] = cards(templates).messages()
    assert text["content"] == (
        "\nGame of 24. Costs 5$.\nHold: ['K', '5', '2', '10']; faces are 11, 12, 13\n{\"cards\": [..]}\n\n"
    )
    [shown] = cards(templates, modality="image").messages()
    assert shown["content"] == "<image>\nLook and make 24; faces are 11, 12, 13 "


def test_an_answer_of_cards(templates):
    hand = cards(templates)
    answer = expert_answer(hand.template, hand.cards, hand.numbers, "(13-5)*2+10")
    assert answer == (
        "\n{ \"cards\": ['K', '5', '2', '10'], \"number\": [13, 5, 2, 10], \"formula\": \"(13-5)*2+10=24\" }"
    )
    assert hand.grade(answer.replace("(13-5)*2+10", "13+5+10/2")).reward == -1


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("13 +5", "odd signs!"),
        ("13 5", "odd signs!"),
        ("+13)(5+2+10)", "odd operator / nothing to close / odd '(' / nothing to close!"),
        ("13(5+2+10", "odd '('!"),
        ("(13+)*5+2+10", "odd ')'!"),
        ("(13)5+2+10", "odd number!"),
        ("13+7+9", "foreign [7, 9] / left [5, 2, 10]!"),
        ("13+13+5+2+10", "more than once [13] there!"),
        ("13+5+2", "left [10]!"),
        ("(10+(", "left [13, 5, 2]!"),
        ("13+5+2+10", "13 was on a way!"),
    ],
)
def test_every_remark_on_a_formula(templates, formula, reason):
    hand = cards(templates)
    step = hand.submit(json.dumps({"formula": formula}))
    assert step.reply == f"Not so: {reason}"


def test_a_formula_that_begins_no_solution(templates):
    hand = cards(templates, ("AS", "AS", "AS", "JS"))
    assert hand.submit('{"formula": "11+1+1+1"}').reply == "Not so: no way begins so!"


def test_a_formula_without_a_remark(templates):
    # Not 24 in floating point, and no leading tokens that begin no solution: reward 0, and nothing is said.
    step = cards(templates, ("3S", "8S", "3C", "8C")).submit('{"formula": "8/(3-8/3)"}')
    assert (step.reward, step.reply) == (0.0, "Not so: !")


def test_no_formula_and_cards_not_recognized(templates):
    assert cards(templates).submit("I do not know").reply == "Not so: odd signs!"
    # The authors return this remark alone, without what ends the others.
    seen = cards(templates, modality="image").submit('{"cards": [1,2,3,4], "formula": "1+2"}')
    assert seen.reply == "Not so: other cards lie there"


def test_the_profile_exact_says_its_own_sentence(templates):
    reply = cards(templates, profile="exact").submit('{"formula": "13+5+2+10"}').reply
    assert reply == "Not so: The formula equals 30, not 24.!"


def test_prompts_of_routes(templates):
    walk = route(templates)
    # By the plain difference of two headings, from 350 to 0 degrees is left.
    sentences = "1) Begin left, to north\n2) Go on.\n3) Then right, to east\n4) Arrive where Cafe is near.\n"
    assert walk.messages()[0]["content"] == (
        f"\nWalk.\n{sentences}\nMoves: go or \"turn_direction(x)\", x: ['north']\n"
        'Log:\nsaw1 No landmarks nearby; \ndid1 \n\n{"action": ..}\n'
    )
    walk.submit(json.dumps({"action": "turn_direction(north)"}))
    assert (
        "Log:\nsaw1 No landmarks nearby; \ndid1 turn_direction(north)\n"
        "saw2 No landmark nearby; An intersection lies here\ndid2 \n\n"
    ) in walk.messages()[0]["content"]
    pictured = load_route_template(templates / "virl.yaml").opening(walk.rail, 1, "relative", 2, "image")
    assert pictured[0]["content"].startswith("<image>\nWatch.\n1) Begin")
    assert "x: ['left']\n" in pictured[0]["content"]
    assert pictured[0]["content"].endswith("saw2 four views; An intersection lies here\ndid2 \n")


def test_a_route_of_one_leg_has_the_words_of_the_last(templates):
    only = Route(0, START, 0.0, (Milestone(CORNER, 0.0, "north", None),))
    assert (
        "\n1) Then slightly left, to north\n2) Arrive where Nothing here.\n"
        in (route(templates, only).messages()[0]["content"])
    )


def test_an_answer_of_a_route(templates):
    assert route(templates).expert_answer() == (
        '\n{"current observation": "No landmarks nearby; ", "current instruction": "Begin left, to north",\n'
        '"action": "turn_direction(north)"}\n'
    )


@pytest.mark.parametrize(
    ("point", "observation", "reason"),
    [
        (0, "an intersection", "no crossing here:"),
        (1, "Intersection Pub", "a crossing here:"),
        (0, "nothing", "another move:"),
        (0, None, "another move:"),
    ],
)
def test_each_direction_of_a_wrong_observation(templates, point, observation, reason):
    landmark = "The intersection pub is near"
    milestones = (Milestone(CORNER, 0.0, "north", landmark), Milestone(PARK, 90.0, "east", "Cafe is near"))
    walk = route(templates, Route(0, START, 350.0, milestones))
    for _ in range(point):
        walk.submit(json.dumps({"action": walk.point.action}))
    answer = {"action": "fly()"} | ({} if observation is None else {"current observation": observation})
    assert walk.submit(json.dumps(answer)).reply == f"Not so: {reason}\n{{{{form}}}} $!"


def test_the_command_writes_them_and_takes_prompts_with_an_example(tmp_path, capsys):
    checkout = write_checkout(tmp_path / "checkout")
    assert main(["template", "from", str(checkout), "--out", str(tmp_path / "t"), "--example"]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "t" / f"{task}.yaml") for task in ("general_points", "virl")
    ]
    assert load_template(tmp_path / "t" / "general_points.yaml").texts["prompt"].template.startswith("For in")
    assert load_route_template(tmp_path / "t" / "virl.yaml").texts["prompt"].template.startswith("For in")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "utils_rl.py",
            '"odd number"',
            "odd(number)",
            r"utils_rl.py: a text: expected .* found 'odd\(number\)'",
        ),
        ("utils_rl.py", '"PARTIAL_SOLUTION"', '"OTHER"', "calls of stepper.add: expected .*found .*OTHER"),
        ("utils_rl.py", "+ '!'", "", "aggregate_fn: expected a join"),
        ("utils_rl.py", "def step_rewards_virl", "def other", "function step_rewards_virl: expected its def"),
        ("prompt_lib/prompts.py", "{face_card_msg}", "{rule}", "Q_GeneralPoint_EQN_L: .* found 'rule'"),
        ("prompt_lib/prompts.py", "Q_VIRL_L =", "Q_VIRL =", "Q_VIRL_L: expected one assignment of a text"),
        ("prompt_lib/prompts.py", "raise", "raise raise", "prompts.py: not a Python file"),
        ("evaluation/evaluator/base_evaluator.py", "face_card_msg", "msg", "face_card_msg: expected"),
        ("evaluation/evaluator/llama_evaluator.py", "Verify", "Other", "Verify Info"),
        ("gym/gym_virl/envs/navigation_environment.py", "; {inter}", " {inter}", "line of a picture"),
        (
            "gym/gym_virl/envs/navigation_environment.py",
            "four views",
            "{heading}",
            "a text: expected the values i",
        ),
    ],
)
def test_another_structure_is_refused_by_file_and_name(tmp_path, name, old, new, message):
    checkout = write_checkout(tmp_path)
    (checkout / name).write_text(FILES[name].replace(old, new))
    with pytest.raises(SftrlError, match=message):
        write_templates(checkout, tmp_path / "out")


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(SftrlError, match=r"prompts.py: no such file; expected a checkout"):
        write_templates(tmp_path, tmp_path / "out")
