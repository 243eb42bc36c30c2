from __future__ import annotations

import os

import pytest

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings, make_facts
from sftrl_ext.envs.general_points.prompts import OUTCOMES, TEMPLATES, expert_answer, load_template
from sftrl_ext.envs.general_points.rules import RULES, Rule
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.envs.general_points.working import calculations
from sftrl_ext.errors import SftrlError

CARDS = parse_cards(["K♠", "5", "2", "4"])
OWN = """
system: You count $num_cards cards.
prompt: "Cards: [$cards]. Rule: $rule. Make $target for 5$$."
rule: J is $jack
rules: {face_10: all faces are ten}
card: "'$rank'"
answer: '{"cards": [$cards], "formula": "$formula"}'
answer_card: "'$rank'"
feedback: {correct: yes!, otherwise: "no: $verdict"}
reply: "$feedback ($attempt of $max_attempts)"
"""


@pytest.fixture
def write(tmp_path):
    def write_text(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return str(path)

    return write_text


@pytest.mark.parametrize("name", ["default", "compact", "single_quotes"])
@pytest.mark.parametrize("rule", list(RULES))
def test_templates_say_cards_rule_and_target(name, rule):
    template = load_template(name)
    (message,) = template.opening(CARDS, RULES[rule], 36, 5)
    assert message["role"] == "user"
    for word in (
        "K",
        "5",
        "2",
        "4",
        "36",
        str(RULES[rule].jack),
        str(RULES[rule].queen),
        str(RULES[rule].king),
    ):
        assert word in message["content"]
    assert "$" not in message["content"]
    assert "♠" not in message["content"]


def test_a_new_rule_is_stated_without_touching_a_template():
    for name in TEMPLATES:
        (message,) = load_template(name).opening(CARDS, Rule("brand_new", 21, 22, 23), 24, 5)
        assert all(value in message["content"] for value in ("21", "22", "23"))


@pytest.mark.parametrize("name", ["default", "compact", "single_quotes"])
@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_expert_answers_are_correct_under_both_profiles(name, profile):
    text = expert_answer(load_template(name), CARDS, (10, 5, 2, 4), "(10+2)*(4+5-7)", 24)
    assert '"number": [10, 5, 2, 4]' in text
    text = expert_answer(load_template(name), CARDS, (10, 5, 2, 4), "10*2+5-4", 21)
    verdict = grade_response(
        text, cards=["K", "5", "2", "4"], numbers=(10, 5, 2, 4), target=21, profile=profile
    )
    assert verdict.correct


@pytest.mark.parametrize("name", ["default", "compact", "single_quotes"])
@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_answers_that_show_their_working_are_read_like_others(name, modality, profile):
    cards, numbers, formula = parse_cards(["A", "K", "K", "3"]), (1, 10, 10, 3), "1+10+10+3"
    texts = [
        expert_answer(load_template(name), cards, numbers, formula, calculations=steps)
        for steps in (None, calculations(formula))
    ]
    verdicts = [
        grade_response(text, cards="AKK3", numbers=numbers, profile=profile, modality=modality)
        for text in texts
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].correct or (modality, profile, name == "single_quotes") == ("image", "authors", False)


def test_the_working_reads_each_lettered_rank_once():
    cards, numbers = parse_cards(["K", "5", "A", "K"]), (10, 5, 1, 10)
    answers = {
        name: expert_answer(load_template(name), cards, numbers, "10+5-1+10", calculations=["10+5=15"])
        for name in ("compact", "default")
    }
    assert answers["compact"] == (
        '{"cards": ["K", "5", "A", "K"], "working": "K=10, A=1, 10+5=15", '
        '"number": [10, 5, 1, 10], "formula": "10+5-1+10=24"}'
    )
    assert '"working": "K counts as 10, A counts as 1, 10+5=15", ' in answers["default"]


def test_every_outcome_has_feedback():
    for name in TEMPLATES:
        template = load_template(name)
        for outcome in OUTCOMES:
            text = template.feedback_text(
                Verdict(outcome, 0.0, "because"), cards="K", numbers="10", target=24
            )
            assert text
            assert text in template.reply(text, 1, 5, 24)


def test_compact_stays_short():
    (message,) = load_template("compact").opening(CARDS, RULES["face_11_12_13"], 24, 5)
    assert message["content"] == "J=11 Q=12 K=13 cards K 5 2 4 target 24"


def test_a_users_file_is_played(write):
    path = write(OWN)
    episode = GeneralPointsEpisode(make_facts(["K", "5", "2", "4"]) | {"template": path, "max_attempts": 3})
    assert episode.messages() == [
        {"role": "system", "content": "You count 4 cards."},
        {"role": "user", "content": "Cards: ['K', '5', '2', '4']. Rule: all faces are ten. Make 24 for 5$."},
    ]
    step = episode.submit("hm")
    assert step.reply.startswith("no: ")
    assert step.reply.endswith("(1 of 3)")
    template = load_template(path)
    assert template.rule(RULES["all_5"]) == "J is 5"
    answer = expert_answer(template, CARDS, (10, 5, 2, 4), "1+1")
    assert answer == "{\"cards\": ['K', '5', '2', '4'], \"formula\": \"1+1\"}"


def test_a_path_in_facts_is_found_from_any_folder(write, monkeypatch, tmp_path):
    write(OWN)
    monkeypatch.chdir(tmp_path)
    facts = GeneralPointsEpisode(make_facts(["K", "5", "2", "4"]) | {"template": "own.yaml"}).facts
    monkeypatch.chdir("/")
    assert facts["template"] == str(tmp_path / "own.yaml")
    assert GeneralPointsEpisode(facts).messages()[0]["content"] == "You count 4 cards."


def test_an_edited_file_is_read_again(write):
    path = write("prompt: $cards\nfeedback: {otherwise: nope}\n")
    assert load_template(path).texts["prompt"].template == "$cards"
    write("prompt: now $cards\nfeedback: {otherwise: nope}\n")
    os.utime(path, ns=(1, 1))
    assert load_template(path).texts["prompt"].template == "now $cards"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("feedback: {otherwise: nope}", "key 'prompt' is missing; found feedback"),
        ("prompt: $cards", "key 'feedback' is missing"),
        ("prompt: hello\nfeedback: {otherwise: nope}", "key 'prompt' lacks the placeholder \\$cards"),
        ("prompt: $cards $rul\nfeedback: {otherwise: nope}", "placeholder \\$rul; allowed there: \\$cards"),
        ("prompt: 5$ $cards\nfeedback: {otherwise: nope}", "starts no placeholder, at character 1"),
        ("prompt: $cards\nfeedback: {correct: yes!}", "no text for wrong_value, wrong_numbers"),
        ("prompt: $cards\nfeedback: {otherwise: nope, wrong_valeu: x}", "Did you mean 'wrong_value'"),
        ("prompt: $cards\nfeedback: nope", "key 'feedback' must be a mapping"),
        ("prompt: $cards\nfeedback: {otherwise: 3}", "key 'feedback.otherwise' must be a text, found 3"),
        ("promt: $cards", "Did you mean 'prompt'"),
        ("image_prompt: hi\nprompt: $cards\nfeedback: {otherwise: x}", "lacks the placeholder \\$image"),
        ("image_prompt: $image $image\nprompt: $cards\nfeedback: {otherwise: x}", "\\$image more than once"),
        ("image_prompt: $image $cards\nprompt: $cards\nfeedback: {otherwise: x}", "gives the cards away"),
        (
            "image_prompt: $image $numbers\nprompt: $cards\nfeedback: {otherwise: x}",
            "allowed there: \\$image",
        ),
        (
            "prompt: $cards\nanswer_working: hm\nfeedback: {otherwise: x}",
            "key 'answer_working' lacks the placeholder \\$steps",
        ),
        ("- a", "expected a mapping"),
        ("a: [", "not a YAML file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(write, text, words):
    path = write(text)
    with pytest.raises(SftrlError, match=words) as error:
        load_template(path)
    assert path in str(error.value)


def test_missing_templates():
    with pytest.raises(SftrlError, match="Did you mean 'compact'"):
        load_template("compct")
    with pytest.raises(SftrlError, match="does not exist"):
        load_template("/nowhere/mine.yaml")


@pytest.mark.parametrize("name", ["secret.txt", "secret", "secret.yaml"])
def test_no_other_file_is_quoted(tmp_path, name):
    path = tmp_path / name
    path.write_text("root:x:0:0:root:/root:/bin/sh")
    with pytest.raises(SftrlError, match=r"that ends in \.yaml or \.yml|expected a mapping") as error:
        load_template(str(path))
    assert "/bin/sh" not in str(error.value)


IMAGE = "prompt: $cards\nimage_prompt: look $image\nfeedback: {otherwise: nope}\n"


def test_a_template_for_images(write):
    template = load_template(write(IMAGE))
    (message,) = template.opening(CARDS, RULES["face_10"], 24, 5, "image")
    assert message == {"role": "user", "content": "look <image>"}
    (message,) = template.opening(CARDS, RULES["face_10"], 24, 5)
    assert message["content"] == "K, 5, 2, 4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (IMAGE.replace("image_prompt: look $image\n", ""), "key 'image_prompt' is missing"),
        (IMAGE + "system: Your cards are $cards.", "key 'system' has the placeholder \\$cards"),
        (IMAGE.replace("nope", "$numbers"), "key 'feedback.otherwise' has the placeholder \\$numbers"),
        (IMAGE.replace("{", "{correct: $cards, "), "key 'feedback.correct' has the placeholder \\$cards"),
        (IMAGE + "reply: <image> $feedback", "key 'reply' holds the text <image>"),
        (IMAGE + "rules: {face_10: see <image>}", "key 'rules.face_10' holds the text <image>"),
        (IMAGE.replace("look", "<image>"), "key 'image_prompt' holds the text <image>"),
    ],
)
def test_a_template_that_is_not_for_images(write, text, words):
    path = write(text)
    load_template(path).opening(CARDS, RULES["face_10"], 24, 5)
    with pytest.raises(SftrlError, match=words) as error:
        PlaySettings(modality="image", template=path)
    assert path in str(error.value)
    with pytest.raises(SftrlError, match=words):
        load_template(path).opening(CARDS, RULES["face_10"], 24, 5, "image")


def test_remarks_of_the_authors_grader_have_texts_of_their_own(write):
    path = write(
        OWN.replace("no: $verdict", "no: $findings.")
        + "findings: {numbers_left_out: 'left: $unused', numbers_not_given: 'not yours: $used'}\n"
        + "findings_join: ' and '\n"
    )
    facts = make_facts(["K", "5", "2", "4"], settings=PlaySettings(template=path, profile="authors"))
    episode = GeneralPointsEpisode(facts)
    assert episode.submit('{"formula": "10+7"}').reply == "no: not yours: 7 and left: 5, 2, 4. (1 of 5)"
    # A remark without a text is left out; exact has no remarks, so its sentence stands there.
    assert episode.submit('{"formula": "10+(5*2*4"}').reply == "no: . (2 of 5)"
    exact = GeneralPointsEpisode({**facts, "profile": "exact"})
    assert "The formula equals" in exact.submit('{"formula": "10+5+2+4"}').reply


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("findings: {numbers_left_ot: x}", "Did you mean 'numbers_left_out'"),
        (
            "findings: {numbers_left_out: $start}",
            r"'findings.numbers_left_out' .* \$start; allowed there: \$unused",
        ),
        ("findings: {number_misplaced: $used}", r"\$used; allowed there: none"),
    ],
)
def test_unknown_remarks_and_fields_are_refused(write, line, message):
    with pytest.raises(SftrlError, match=message):
        load_template(write(OWN + line + "\n"))


def test_a_file_that_is_no_template_is_not_repeated(tmp_path):
    """Rows of others name templates: an error about one must not show what stands in the file."""
    (tmp_path / "secret.yaml").write_text("root:x:0:0:the root password")
    with pytest.raises(SftrlError, match="found str") as error:
        load_template(str(tmp_path / "secret.yaml"))
    assert "password" not in str(error.value)
