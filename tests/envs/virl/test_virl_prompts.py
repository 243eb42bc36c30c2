from __future__ import annotations

import json

import pytest
from virl_examples import MUSEUM, ROUTE

from sftrl_ext.envs.virl.answer import Answer, extract_answer
from sftrl_ext.envs.virl.episode import NavigationEpisode, PlaySettings, make_facts
from sftrl_ext.envs.virl.prompts import TEMPLATES, expert_answer, load_template
from sftrl_ext.envs.virl.rail import ACTION_SPACES, Turn
from sftrl_ext.envs.virl.track import lay_track
from sftrl_ext.errors import SftrlError

TRACK = lay_track(ROUTE)

OWN = """
prompt: |-
  $instructions
  $history
  $rule $max_attempts
feedback: {otherwise: "no: $verdict", correct: yes!}
reply: "$feedback ($attempt of $max_attempts, $attempts_left left)"
system: "$rule"
rules: {absolute: "words: $words"}
instruction: "- $sentence"
turn: $absolute/$relative
go: go on
arrive_landmark: on to $landmark
observed: "saw $observation"
acted: "did $action"
view: this
intersection: an intersection
answer: "{'action': '$action'}"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def episode(**settings):
    return NavigationEpisode(make_facts(TRACK, PlaySettings(drop_rate=1, **settings)))


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("action_space", ACTION_SPACES)
def test_a_prompt_says_all_that_is_needed(name, action_space):
    (message,) = episode(template=name, action_space=action_space).messages()
    text = message["content"]
    for word in (*ACTION_SPACES[action_space], "north", "slightly right", MUSEUM, "O_1: ", "A_1:"):
        assert word in text
    assert [f"{i}. " in text for i in (1, 6, 7)] == [True, True, False]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_two_spaces_differ_in_the_rule_only(name):
    absolute, relative = (episode(template=name, action_space=space) for space in ACTION_SPACES)
    rules = [absolute.template.rule(space) for space in ACTION_SPACES]
    one, other = absolute.messages()[0]["content"], relative.messages()[0]["content"]
    assert one.replace(rules[0], "") == other.replace(rules[1], "")
    assert one != other


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_expert_answers_are_right_and_read_back(name, profile):
    walked = episode(template=name, profile=profile)
    for position, point in enumerate(walked.rail.points):
        text = expert_answer(walked.template, walked.rail, position)
        assert json.loads(text)["action"] == point.action
        sentence = walked.template.sentences(walked.rail.turns)[point.instruction]
        assert extract_answer(text) == Answer(point.observation, sentence, point.action)


def test_expert_answers_escape_what_json_does():
    template = load_template("default")
    text = template.answer('The "Bar\\" is on your left', "go", "stop()")
    assert json.loads(text)["current observation"] == 'The "Bar\\" is on your left'


def test_instructions():
    template = load_template("default")
    turns = [Turn("left", "north", None, False), Turn("right", "east", "X is here", True)]
    assert template.sentences(turns) == [
        "Turn left to face north.",
        "Go on to the next intersection.",
        "Turn right to face east.",
        "Go on to your destination, where X is here.",
    ]


def test_history_names_what_was_seen_and_done():
    walked = episode(template="compact")
    points = walked.rail.points
    assert walked.template.history(points[:2]).splitlines() == [
        "O_1: No landmarks nearby",
        "A_1: turn_direction(north)",
        "O_2: Corner Cafe is on your left; intersection",
        "A_2:",
    ]
    with_image = walked.template.history(points[:2], "image").splitlines()
    assert with_image[2:] == ["O_2: picture; intersection", "A_2:"]
    assert walked.template.history(points, "image").splitlines()[-2:] == ["O_4: picture", "A_4:"]
    authors = episode(template="compact", profile="authors")
    assert authors.history == "O_1: No landmarks nearby; \nA_1:"
    lines = authors.template.history(authors.rail.points, "image").splitlines()
    assert lines[2:4] == ["O_2: Corner Cafe is on your left; intersection", "A_2: turn_direction(east)"]
    assert lines[-2:] == ["O_4: picture; ", "A_4:"]


def test_a_users_file_is_played(write):
    walked = episode(template=write(OWN), max_attempts=3)
    system, user = walked.messages()
    assert system == {"role": "system", "content": walked.template.rule("absolute")}
    lines = user["content"].splitlines()
    assert lines[:3] == [
        "- north/slightly right",
        "- Go on to the next intersection, where Corner Cafe is on your left.",
        "- east/right",
    ]
    assert lines[-3:] == ["saw No landmarks nearby", "did", walked.template.rule("absolute") + " 3"]
    assert walked.expert_answer() == "{'action': 'turn_direction(north)'}"
    assert (
        walked.submit("hm").reply
        == "no: The response holds no answer object with an action. (1 of 3, 2 left)"
    )
    assert walked.submit(walked.expert_answer()).attempt.verdict.feedback == "yes!"
    assert "saw Corner Cafe is on your left; an intersection" in walked.messages()[-1]["content"]
    assert walked.template.rule("relative").endswith("left, right, slightly left, slightly right.")


def test_a_path_in_facts_is_found_from_any_folder(write, monkeypatch, tmp_path):
    write(OWN)
    monkeypatch.chdir(tmp_path)
    facts = episode(template="own.yaml").facts
    monkeypatch.chdir("/")
    assert facts["template"] == str(tmp_path / "own.yaml")
    assert NavigationEpisode(facts).messages() == NavigationEpisode(facts).messages()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt: $history\nfeedback: {otherwise: x}", "key 'prompt' lacks the placeholder \\$instructions"),
        (OWN.replace("$history", ""), "key 'prompt' lacks the placeholder \\$history"),
        (OWN.replace("$history", "$history $image"), "\\$image; allowed there: \\$history"),
        (OWN.replace("$absolute/", ""), "key 'turn' lacks the placeholder \\$absolute"),
        (OWN.replace("an intersection", "a crossing"), "key 'intersection' lacks the word 'intersection'"),
        (OWN.replace("correct: yes!", "corect: yes!"), "Did you mean 'correct'"),
        (OWN.replace("otherwise", "correct").replace(", correct: yes!", ""), "no text for wrong_action"),
        (OWN.replace("view: this", "viw: this"), "Did you mean 'view'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(write, text, words):
    path = write(text)
    with pytest.raises(SftrlError, match=words) as error:
        load_template(path)
    assert path in str(error.value)


def test_a_template_without_a_prompt_for_images(write, tmp_path):
    path = write(OWN)
    with pytest.raises(SftrlError, match="key 'image_prompt' is missing") as error:
        PlaySettings(modality="image", template=path, street_views=str(tmp_path))
    assert path in str(error.value)
    path = write(OWN + "image_prompt: $image $instructions $history\ngo_landmark: <image> $landmark")
    assert load_template(path).texts["go_landmark"].template == "<image> $landmark"
    with pytest.raises(SftrlError, match="key 'go_landmark' holds the text <image>"):
        PlaySettings(modality="image", template=path, street_views=str(tmp_path))


def test_names():
    assert set(TEMPLATES) == {"default", "compact"}
    with pytest.raises(SftrlError, match="Did you mean 'compact'"):
        load_template("compct")


def test_the_first_and_the_last_turn_and_the_waiting_line_have_texts_of_their_own(write):
    own = (
        OWN + "turn_first: first $absolute/$relative\nturn_last: last $absolute/$relative\nacting: 'do$n '\n"
    )
    text = episode(template=write(own)).messages()[-1]["content"]
    assert "- first north/slightly right\n" in text
    assert "- east/right\n" in text and "- last south/right\n" in text
    assert "\ndo1 \n" in text


def test_the_directions_of_a_wrong_observation_have_texts_of_their_own(write):
    own = OWN.replace(
        "feedback: {", "feedback: {intersection_claimed: none here, intersection_missed: one here, "
    )
    for profile in ("exact", "authors"):
        walk = episode(template=write(own), profile=profile)
        claimed = walk.submit('{"current observation": "an intersection", "action": "fly()"}')
        assert claimed.reply.startswith("none here (1 of")
    walk = episode(template=write(own))
    walk.submit('{"action": "turn_direction(north)"}')
    assert walk.submit('{"current observation": "a cafe", "action": "fly()"}').reply.startswith("one here")
    plain = episode(template=write(OWN))
    assert plain.submit('{"current observation": "intersection", "action": "fly()"}').reply.startswith("no: ")
