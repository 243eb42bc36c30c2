from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virl_examples import CAFE, MUSEUM, answer

from sftrl_ext.envs.answer import MAX_LENGTH
from sftrl_ext.envs.virl.answer import Answer, extract_answer, normalize_action
from sftrl_ext.envs.virl.rail import INTERSECTION_NOTE, NO_LANDMARKS, Point
from sftrl_ext.envs.virl.verifier import OUTCOMES, REWARDS, grade_response, landmark_name
from sftrl_ext.errors import SftrlError

SEEN = f"{CAFE}; {INTERSECTION_NOTE}"
TURN = "turn_direction(northeast)"
CROSSING = Point((0, 0), 0, TURN, SEEN, True, CAFE, CAFE)
PLAIN = Point((0, 0), 0, "forward()", NO_LANDMARKS, False)
START = Point((0, 0), 0, TURN, NO_LANDMARKS, False)
END = Point((0, 0), 0, "stop()", MUSEUM, False, MUSEUM, MUSEUM)
NAMED = Point(
    (0, 0), 0, "forward()", "x", False, "Five intersections Bar is on your left", "Intersection Bar"
)

FULL = Answer("No landmarks nearby; You stand at an intersection", "2. Go on.", TURN)
JSON = json.dumps(
    {
        "current observation": FULL.observation,
        "current instruction": FULL.instruction,
        "action": FULL.action,
    }
)
PYTHON = JSON.replace('"', "'")


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        PYTHON,
        " \n" + JSON + "\n",
        JSON.replace(", ", ",\n  ").replace("{", "{\n  "),
        "```json\n" + JSON + "\n```",
        "The action: is hard. Observation: none.\n" + JSON + "\nThis action: is right.",
        "{current observation: No landmarks nearby; You stand at an intersection\n"
        "current instruction: 2. Go on.\naction: turn_direction(northeast)}",
        "{current observation: No landmarks nearby; You stand at an intersection, "
        "current instruction: 2. Go on., action: turn_direction(northeast)}",
        JSON.replace('"', "“", 1).replace('"', "”", 1),
        JSON.replace("current observation", "Current_Observation").replace("action", "ACTION"),
        JSON.replace("current ", ""),
        '{"answer": ' + JSON + "}",
        "[" + JSON + "]",
        '{"action": "stop()", "current observation": "x"} or rather ' + JSON,
        JSON + ' {"action": null}',
        JSON[1:],
        "x" * (2 * MAX_LENGTH) + JSON,
        JSON + "x" * (2 * MAX_LENGTH),
    ],
    ids=range(18),
)
def test_the_same_answer_in_many_forms(text):
    assert extract_answer(text) == FULL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Answer()),
        ("action: stop()", Answer()),
        ("I would take the action stop().", Answer()),
        ('"action": "stop()"', Answer(action="stop()")),
        ('{"action": "stop()', Answer(action="stop()")),
        ('{"action": 3}', Answer(action="3")),
        ('{"action": ["stop()"]}', Answer(action='["stop()"]')),
        ('{"action": ""}', Answer(action="")),
        ("{'action': 'turn_direction('left')'}", Answer(action="turn_direction('left')")),
        (
            "{'current observation': 'Joe's Bar is on your left', 'action': 'stop()'}",
            Answer("Joe's Bar is on your left", None, "stop()"),
        ),
        (
            '{"current observation": "The "Bar" is on your left", "action": "stop()",}',
            Answer('The "Bar" is on your left', None, "stop()"),
        ),
        ('{"current observation": null, "current instruction": 3, "action": "x"}', Answer(action="x")),
        ('{"action": "a"} {"action": "b"}', Answer(action="b")),
        ('{"current observation": "x", "action"', Answer("x")),
    ],
)
def test_pieces(text, expected):
    assert extract_answer(text) == expected


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ("forward()", "forward()"),
        ("Forward", "forward()"),
        (" forward ( ) . ", "forward()"),
        ("STOP()", "stop()"),
        ("turn_direction(northeast)", TURN),
        ("turn_direction('north-east')", TURN),
        ('Turn Direction("North East")', TURN),
        ("turn-direction( NORTHEAST );", TURN),
        ("turn_direction(slightly_left)", "turn_direction(slightly left)"),
        ("turn_direction(Slightly  Right)", "turn_direction(slightly right)"),
        ("turn_direction()", "turn_direction()"),
        ("turn_direction", "turn_direction"),
        ("turn_direction(up)", "turn_direction(up)"),
        ("forward(3)", "forward(3)"),
        ("turn_direction((north))", "turn_direction((north))"),
        ("fly()", "fly()"),
        ("", ""),
        ("x" * 200, "x" * 200),
    ],
)
def test_actions_are_read_in_any_spelling(written, action):
    assert normalize_action(written) == action


def outcome(text, point, **options):
    verdict = grade_response(text, point, **options)
    assert verdict.reward == REWARDS[verdict.outcome]
    assert verdict.outcome in OUTCOMES
    return verdict.outcome, verdict.reward


RIGHT, WRONG, BLIND = ("correct", 1.0), ("wrong_action", -1.0), ("wrong_observation", -1.5)
NOTHING = ("unparsable", -1.0)


@pytest.mark.parametrize(
    ("observation", "action", "point", "exact", "authors"),
    [
        # The right action is right, whatever the observation says.
        (SEEN, TURN, CROSSING, RIGHT, RIGHT),
        ("", TURN, CROSSING, RIGHT, RIGHT),
        ("You are at an intersection", "forward()", PLAIN, RIGHT, RIGHT),
        # At a real intersection a right observation costs -1.5 there, and a wrong one -1.
        (SEEN, "forward()", CROSSING, WRONG, BLIND),
        (NO_LANDMARKS, "forward()", CROSSING, BLIND, WRONG),
        # Elsewhere the two agree.
        (NO_LANDMARKS, "stop()", PLAIN, WRONG, WRONG),
        ("An intersection", "stop()", PLAIN, BLIND, BLIND),
        (NO_LANDMARKS, "stop()", START, WRONG, WRONG),
        (MUSEUM, "forward()", END, WRONG, WRONG),
        ("an intersection", "forward()", END, BLIND, BLIND),
        # The word in upper case, and a denial, are read by one of them only.
        ("INTERSECTION ahead", "stop()", PLAIN, BLIND, WRONG),
        ("There is no intersection here", "stop()", PLAIN, WRONG, BLIND),
        # The landmark's text names an intersection.
        ("x", "stop()", NAMED, WRONG, BLIND),
        ("intersection", "stop()", NAMED, BLIND, WRONG),
        ("Intersection Bar is on your left", "stop()", NAMED, WRONG, BLIND),
        # Spelling.
        (SEEN, "Turn_Direction(North-East)", CROSSING, RIGHT, BLIND),
        (SEEN, " turn_direction(northeast)", CROSSING, RIGHT, BLIND),
        # An action of the other space.
        (SEEN, "turn_direction(left)", CROSSING, WRONG, BLIND),
    ],
)
def test_outcomes_point_by_point(observation, action, point, exact, authors):
    text = answer(observation, action)
    assert outcome(text, point) == exact
    assert outcome(text, point, profile="authors") == authors


@pytest.mark.parametrize(
    ("text", "point", "exact", "authors"),
    [
        ("what?", PLAIN, NOTHING, NOTHING),
        ("", CROSSING, NOTHING, NOTHING),
        ("what?", NAMED, NOTHING, BLIND),
        ('{"action": "forward()"}', PLAIN, RIGHT, RIGHT),
        ('{"action": "forward()"', PLAIN, RIGHT, RIGHT),
        ('{"action": "stop()"}', PLAIN, WRONG, WRONG),
        ('{"action": "stop()"}', CROSSING, BLIND, WRONG),
        ("{'action': 'forward()'}", PLAIN, RIGHT, NOTHING),
        ('{"action":"forward()"} x', PLAIN, RIGHT, NOTHING),
        ('x {"action": "forward()"}', PLAIN, RIGHT, RIGHT),
        ('x {"action": "forward()"} {"action": "stop()"}', PLAIN, WRONG, RIGHT),
        ('x {"action": "stop()", "current observation": "an intersection', PLAIN, BLIND, WRONG),
        ('{"action": "stop()", "current observation": 3}', PLAIN, WRONG, NOTHING),
        ('{"action": "forward()", "current observation": 3}', PLAIN, RIGHT, RIGHT),
        ('{"action": "stop()", "current observation": null}', PLAIN, WRONG, NOTHING),
        ('{"action": 3, "current observation": "x"}', PLAIN, WRONG, NOTHING),
        ('{"action": null}', PLAIN, NOTHING, NOTHING),
        ('{"action": "", "current observation": "x"}', PLAIN, NOTHING, WRONG),
        ('{"current observation": "an intersection"}', PLAIN, NOTHING, BLIND),
        ("[" * 100_000, PLAIN, NOTHING, NOTHING),
    ],
    ids=range(20),
)
def test_what_is_missing_or_odd(text, point, exact, authors):
    assert outcome(text, point) == exact
    assert outcome(text, point, profile="authors") == authors


LANDMARKS = (CAFE, MUSEUM, "Corner is on your right")


@pytest.mark.parametrize(
    ("observation", "point", "result"),
    [
        (SEEN, CROSSING, WRONG),
        ("the corner cafe, at an intersection", CROSSING, WRONG),
        ("The Corner-Cafe! intersection", CROSSING, WRONG),
        ("A cafe at an intersection", CROSSING, BLIND),
        ("Corner Cafeteria at an intersection", CROSSING, BLIND),
        (INTERSECTION_NOTE, CROSSING, BLIND),
        (f"{CAFE}, {MUSEUM}; {INTERSECTION_NOTE}", CROSSING, BLIND),
        (NO_LANDMARKS, PLAIN, WRONG),
        ("", PLAIN, WRONG),
        (CAFE, PLAIN, BLIND),
        (MUSEUM, END, WRONG),
        (NO_LANDMARKS, END, BLIND),
    ],
)
def test_landmarks_are_named_where_they_are_seen(observation, point, result):
    text = answer(observation, "fly()")
    assert outcome(text, point, modality="image", landmarks=LANDMARKS) == result
    in_text = outcome(text, point, landmarks=LANDMARKS)
    assert in_text == WRONG
    verdict = grade_response(text, point, landmarks=LANDMARKS)
    assert verdict.details["recognized"] == (result == WRONG)
    assert verdict.details["intersection_right"]


def test_details_and_feedback():
    verdict = grade_response(answer("A" * 1000, "fly()", "go"), PLAIN)
    assert verdict.details == {
        "observation": "A" * 200,
        "instruction": "go",
        "action": "fly()",
        "intersection_right": True,
        "landmark_right": True,
        "recognized": True,
    }
    assert "turn_direction(x)" in verdict.feedback and "northwest" in verdict.feedback
    assert "slightly left" in grade_response(answer("", "fly()"), PLAIN, action_space="relative").feedback
    assert grade_response("what?", PLAIN).details["recognized"] is False
    for profile in ("exact", "authors"):
        for text in (answer(SEEN, "stop()"), answer("", "stop()"), "what?"):
            feedback = grade_response(text, CROSSING, profile=profile, modality="image").feedback
            assert "northeast" not in feedback and "Cafe" not in feedback


@pytest.mark.parametrize(
    ("text", "point", "right"),
    [
        ("There isn't an intersection", PLAIN, True),
        ("I don't see any intersection", PLAIN, True),
        ("You are not at an intersection", PLAIN, True),
        ("Not yet there, intersection", PLAIN, False),
        ("No landmarks nearby, you are at an intersection", CROSSING, True),
        ("No landmark. An intersection", CROSSING, True),
        ("No intersection", CROSSING, False),
    ],
)
def test_denials(text, point, right):
    details = grade_response(answer(text, "fly()"), point).details
    assert details["intersection_right"] == right


@pytest.mark.parametrize(
    ("clause", "name"),
    [
        (CAFE, "Corner Cafe"),
        ("The Inn at Is on your left is on your right", "The Inn at"),
        ("Joe's is ahead of you", "Joe's"),
        ("Just a Name", "Just a Name"),
    ],
)
def test_names_of_landmarks(clause, name):
    assert landmark_name(clause) == name


def test_unknown_names():
    for options in ({"profile": "x"}, {"modality": "x"}, {"action_space": "x"}):
        with pytest.raises(SftrlError, match="unknown"):
            grade_response("", PLAIN, **options)


PIECES = ["{", "}", "[", '"', "'", "“", "action", '"action"', "current observation", ":", ", ", "\n", "\\"]
PIECES += [
    "turn_direction(",
    ")",
    "north",
    "forward()",
    "intersection",
    "no",
    "null",
    " ",
    "`",
    '"action": "',
]


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_text_is_graded(text):
    for point in (PLAIN, CROSSING):
        for profile in ("exact", "authors"):
            for modality in ("text", "image"):
                outcome(text, point, profile=profile, modality=modality, landmarks=LANDMARKS)
    normalize_action(text)


@pytest.mark.parametrize(
    "piece",
    ["{", " ", "\\", '"', '"action": "', "action: ", "{'action': '", "'action' : ", '{"action": {"a": ']
    + ["current observation:", "no intersection", "action" + " " * 50, "is on "],
)
def test_long_texts_take_bounded_time(piece):
    text = piece * (300_000 // len(piece))
    started = time.process_time()
    for profile in ("exact", "authors"):
        grade_response(text, CROSSING, profile=profile, modality="image", landmarks=LANDMARKS)
        grade_response(answer(text, "x"), CROSSING, profile=profile, landmarks=LANDMARKS)
    assert time.process_time() - started < 3
