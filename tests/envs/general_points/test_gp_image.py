"""Cards shown as an image: the picture, the facts, the order of grading, and that no text gives them away."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs import count_markers, make_episode
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.cards import RANKS, Card
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings, make_facts
from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.envs.general_points.prompts import TEMPLATES, expert_answer
from sftrl_ext.envs.general_points.render import Look, draw_hand
from sftrl_ext.errors import SftrlError

SMALL = Look(width=96, height=64)
CARDS = ["KS", "5C", "2S", "4S"]
hands = st.lists(st.builds(Card, st.sampled_from(RANKS), st.sampled_from("SHDC")), min_size=4, max_size=4)


def _play(cards=CARDS, rule="face_10", image_seed=0, **changes):
    play = PlaySettings(**({"modality": "image", "look": SMALL} | changes))
    return GeneralPointsEpisode(make_facts(cards, rule, 24, play, image_seed))


def _answer(formula, cards=("K", "5", "2", "4"), number=(10, 5, 2, 4)):
    return json.dumps({"cards": cards, "number": number, "formula": formula})


def test_the_picture_is_the_hands_and_drawn_once():
    episode = _play(image_seed=7, look=Look(96, 64, arrangement="rotated"))
    (image,) = episode.images()
    assert image == draw_hand(episode.cards, Look(96, 64, arrangement="rotated"), 7)
    assert image != _play(image_seed=8, look=Look(96, 64, arrangement="rotated")).images()[0]
    episode.submit("?")
    assert episode.images()[0] is image
    assert GeneralPointsEpisode(make_facts(["A", "2"])).images() == ()


def test_facts_rebuild_the_episode():
    facts = make_facts(CARDS, settings=PlaySettings(modality="image"), image_seed=3)
    assert facts["modality"] == "image"
    assert facts["look"] == {
        "width": 1200,
        "height": 1200,
        "table": "green",
        "deck": "classic",
        "arrangement": "row",
    }
    assert facts["image_seed"] == 3
    episode = make_episode(json.loads(facts_text(facts)))
    assert episode.facts == facts
    assert episode.settings.look == Look()
    bare = make_episode({"task": "general_points", "modality": "image", "cards": CARDS})
    assert (bare.image_seed, bare.settings.look) == (0, Look())
    assert not {"look", "image_seed"} & set(make_facts(CARDS))
    assert not {"look", "image_seed"} & set(GeneralPointsEpisode(make_facts(CARDS)).facts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cards": ["KS", "5", "2S", "4S"]}, "the card '5' has no suit; an image needs one, as in '5S'"),
        ({"image_seed": -1}, "'image_seed' is -1, expected a whole number >= 0"),
        ({"image_seed": True}, "'image_seed' is True"),
        ({"look": {"colour": 3}}, "unknown field of look 'colour'"),
        ({"look": {"deck": "clasic"}}, "Did you mean 'classic'"),
        ({"look": 3}, "expected a Look or its fields"),
        ({"profile": "authors", "cards": ["KS", "5S", "2S"]}, "recognizes exactly 4"),
    ],
)
def test_wrong_facts(change, words):
    with pytest.raises(SftrlError, match=words):
        make_episode(make_facts(CARDS, settings=PlaySettings(modality="image")) | change)


@pytest.mark.parametrize("profile", ["exact", "authors"])
@pytest.mark.parametrize(
    ("formula", "cards", "outcome", "reward"),
    [
        ("10+5*2+4", "K524", "correct", 5),
        ("10+5*2+4", "425K", "correct", 5),
        ("10+5*2-4", "K524", "wrong_value", -1),
        ("10+5*2+3", "K524", "wrong_numbers", None),
        ("10+5*2+4", "Q524", "cards_not_recognized", -1.5),
        ("10+5*2+4", "K52", "cards_not_recognized", -1.5),
        ("10+5*(2+4", "A234", "cards_not_recognized", -1.5),
    ],
)
def test_recognition_is_graded_before_the_formula(profile, formula, cards, outcome, reward):
    ranks = ", ".join(f"'{rank}'" for rank in cards)
    episode = _play(profile=profile)
    step = episode.submit(f'{{"cards": [{ranks}], "number": [10, 5, 2, 4], "formula": "{formula}=24"}}')
    verdict = step.attempt.verdict
    assert verdict.outcome == outcome
    assert verdict.reward == (reward or (-2 if profile == "exact" else -4))
    assert verdict.details["recognized"] == (outcome != "cards_not_recognized")


@pytest.mark.parametrize("written", ['["K", "5", "2", "4"]', "['K','5','2','4']", "[K, 5, 2, 4]"])
def test_how_the_profiles_read_cards(written):
    text = f'{{"cards": {written}, "formula": "10+5*2+4=24"}}'
    assert _play().submit(text).attempt.verdict.correct
    assert _play(profile="authors").submit(text).attempt.verdict.correct == ('"K"' not in written)


def test_without_an_answer_the_profiles_differ():
    assert _play().submit("hm").attempt.verdict.outcome == "unparsable"
    assert _play(profile="authors").submit("hm").attempt.verdict.outcome == "cards_not_recognized"


def test_metrics_count_what_was_seen():
    text = GeneralPointsEpisode(make_facts(CARDS)).metrics()
    episode = _play()
    assert set(episode.metrics()) == set(text) | {"recognized", "number_right"}
    assert set(episode.metrics().values()) == {0.0}
    episode.submit("?")
    episode.submit(_answer("10+5*2-4", number=(13, 5, 2, 4)))
    episode.submit(_answer("10+5*2-4", cards=["A"]))
    episode.submit(_answer("10+5*2+4"))
    metrics = episode.metrics()
    assert (metrics["recognized"], metrics["number_right"]) == (0.5, 0.5)
    assert metrics["outcome/cards_not_recognized"] == 0.25
    assert all(type(value) is float for value in metrics.values())


def test_expert_answers_are_read_by_the_profile_they_are_for():
    for name, profiles in (
        ("default", ["exact"]),
        ("compact", ["exact"]),
        ("single_quotes", ["exact", "authors"]),
    ):
        for profile in profiles:
            episode = _play(template=name, profile=profile)
            text = expert_answer(episode.template, episode.cards, episode.numbers, "10+5*2+4")
            assert episode.submit(text).terminated


BLIND = (
    "I cannot see them",
    '{"cards": ["A", "2", "3", "4"], "number": [1, 2, 3, 4], "formula": "1*2*3*4=24"}',
    "{\"cards\": ['A', '2', '3', '4'], \"number\": [1, 2, 3, 4], \"formula\": \"1*2*3*4=24\"}",
    '{"cards": [], "number": [], "formula": "(1+2"}',
    "<image>",
)
"""Responses of a model that sees nothing."""


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@settings(max_examples=40, deadline=None)
@given(st.lists(hands, min_size=2, max_size=6))
def test_a_blind_model_reads_the_same_whatever_was_dealt(name, dealt):
    read = defaultdict(set)
    for cards in dealt:
        for profile in ("exact", "authors"):
            episode = _play(cards, template=name, profile=profile, max_attempts=len(BLIND) + 1)
            read["prompt"].add(json.dumps(episode.messages()))
            for number, response in enumerate(BLIND):
                step = episode.submit(response)
                if step.done:
                    break
                read[profile, number, step.attempt.verdict.outcome].add(step.reply)
            assert count_markers(episode.messages()) == len(episode.images()) == 1
    assert all(len(texts) == 1 for texts in read.values())


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@settings(max_examples=60, deadline=None)
@given(hands, st.sampled_from(["face_10", "face_11_12_13"]), st.data())
def test_feedback_holds_no_number_that_the_response_does_not(name, cards, rule, data):
    profile = data.draw(st.sampled_from(["exact", "authors"]))
    episode = _play(cards, rule, template=name, profile=profile, max_attempts=9)
    opening = episode.messages()
    for number in range(5):
        wrong = data.draw(st.text(alphabet="123456789+-*/()", max_size=8))
        formula = data.draw(st.sampled_from(["+".join(map(str, episode.numbers)), wrong, f"{wrong}=24", ""]))
        ranks = ", ".join(f"'{card.rank}'" for card in cards)
        response = f'{{"cards": [{ranks}], "formula": "{formula}"}}'
        step = episode.submit(response)
        if step.done:
            return
        parsed = parse(formula.partition("=")[0])
        value = parsed.value() if parsed.legal else None
        count = re.match(r".*?(\d+) of its symbols", step.reply)
        known = f"{response} 24 {8 - number} {value} {float(value or 0)} {count[1] if count else ''}"
        assert set(re.findall(r"\d+", step.reply)) <= set(re.findall(r"\d+", known))
        assert not re.search(r"\b[JQK]\b", step.reply)
        assert count_markers(episode.messages()) == 1
    assert episode.messages()[: len(opening)] == opening
