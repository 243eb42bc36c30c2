"""The draw of the published code: its exact shares by enumeration, and hands that are drawn so."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import permutations, product

import gymnasium
import numpy as np
import pytest

import sftrl_ext.envs  # noqa: F401  (registers the environments)
from sftrl_ext.envs.general_points.cards import FACES, RANKS
from sftrl_ext.envs.general_points.hands import HandSpec, draw_hands
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.shares import draw_shares
from sftrl_ext.envs.general_points.solver import is_solvable

RULE = RULES["face_11_12_13"]
OTHER = RULES["face_10"]


def forced(draw, **changes):
    return HandSpec("face_11_12_13", draw=draw, need_face=True, **changes)


def percent(share):
    return round(100 * float(share), 1)


def test_shares_of_the_draws_of_the_other_rule():
    """arXiv 2501.17161's code: 49.6 % of its solvable hands hold one face card; i.i.d. draws have 67.9 %."""
    authors, iid = draw_shares(forced("authors")), draw_shares(forced("iid"))
    assert (percent(authors.one_face), percent(iid.one_face)) == (49.6, 67.9)
    assert (percent(authors.other_rule), percent(iid.other_rule)) == (63.9, 70.5)


def test_shares_by_dealing_every_hand_one_by_one():
    """All 13 ** 3 * 3 deals of three ranks and one face card, without weights of multisets."""
    solvable = Counter({"all": 0})
    for deal in product(*[RANKS] * 3, sorted(FACES)):
        if not is_solvable([RULE.number(rank) for rank in deal], 24):
            continue
        solvable["all"] += 1
        solvable["one face"] += sum(rank in FACES for rank in deal) == 1
        solvable["other rule"] += is_solvable([OTHER.number(rank) for rank in deal], 24)
    shares = draw_shares(forced("authors"))
    assert shares.kept == Fraction(solvable["all"], 13**3 * 3)
    assert shares.one_face == Fraction(solvable["one face"], solvable["all"])
    assert shares.other_rule == Fraction(solvable["other rule"], solvable["all"])


def test_a_deck_is_dealt_as_often_as_its_cards_allow():
    """Of six cards (three ranks in two suits, say) the shares equal those of all ordered deals."""
    spec = HandSpec("face_11_12_13", num_cards=3, draw="deck", suits="black", need_face=True)
    deck = [rank for rank in RANKS for _ in range(2)]
    kept = [
        deal
        for deal in permutations(range(26), 3)
        if FACES & {deck[i] for i in deal} and is_solvable([RULE.number(deck[i]) for i in deal], 24)
    ]
    one = sum(sum(deck[i] in FACES for i in deal) == 1 for deal in kept)
    assert draw_shares(spec).one_face == Fraction(one, len(kept))


@pytest.mark.parametrize("part", ["all", "seen"])
@pytest.mark.parametrize("draw", ["authors", "iid", "deck"])
def test_drawn_hands_have_the_exact_shares(draw, part):
    spec = forced(draw, part=part)
    hands = draw_hands(np.random.default_rng(2), spec, 8000)
    faces = np.isin(np.array(RULE.ranks)[hands.ranks], sorted(FACES))
    assert faces.any(axis=1).all()
    exact = float(draw_shares(spec).one_face)
    error = (exact * (1 - exact) / 8000) ** 0.5
    assert abs((faces.sum(axis=1) == 1).mean() - exact) < 4 * error
    assert np.ptp(faces.mean(axis=0)) < 0.04, "a face card is as often first as last"


def test_without_a_forced_card_the_draw_is_that_of_independent_ranks():
    drawn = [draw_hands(np.random.default_rng(5), HandSpec(draw=draw), 300) for draw in ("iid", "authors")]
    assert np.array_equal(drawn[0].ranks, drawn[1].ranks)
    assert np.array_equal(drawn[0].suits, drawn[1].suits)


def test_the_profile_names_the_draw_of_an_environment():
    def draw_of(**options):
        env = gymnasium.make("sftrl/GeneralPoints-v0", rule="face_11_12_13", need_face=True, **options)
        return env.unwrapped.spec_of_hands.draw

    assert draw_of() == "iid"
    assert draw_of(profile="authors") == "authors"
    assert draw_of(profile="authors", draw="deck") == "deck"
