from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.hands import (
    BLOCK,
    HandSpec,
    draw_hand,
    draw_hands,
    hand_at,
    hand_block,
    is_held_out,
)
from sftrl_ext.envs.general_points.rules import RULES, holds_face
from sftrl_ext.envs.general_points.solver import is_solvable
from sftrl_ext.errors import SftrlError


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("rule", ["face_10", "face_11_12_13", "all_5", "large"])
@pytest.mark.parametrize("draw", ["iid", "deck"])
def test_drawn_hands_are_solvable(rule, draw):
    hands = draw_hands(_rng(), HandSpec(rule, draw=draw), 200)
    for i in range(200):
        hand = hands[i]
        assert len(hand.cards) == 4
        assert is_solvable(hand.numbers, 24)
        if rule == "large":
            assert any(card.rank in RULES["large"].extra for card in hand.cards)
        if draw == "deck":
            assert len(set(hand.cards)) == 4


@given(st.integers(0, 2**32), st.integers(0, 3000))
@settings(max_examples=20, deadline=None)
def test_a_hand_is_a_pure_function_of_seed_and_index(seed, index):
    spec = HandSpec("face_11_12_13")
    assert hand_at(seed, index, spec) == hand_at(seed, index, spec)
    assert hand_at(seed, index, spec) == hand_block(seed, index // BLOCK, spec)[index % BLOCK]


def test_seeds_and_streams_differ():
    spec = HandSpec()
    same = hand_block(0, 0, spec).ranks
    for other in (hand_block(1, 0, spec), hand_block(0, 1, spec), hand_block(0, 0, spec, "eval/id")):
        assert not np.array_equal(same, other.ranks)
    with pytest.raises(SftrlError, match="seed is -1"):
        hand_block(-1, 0, spec)


def test_global_random_state_is_neither_read_nor_changed():
    before = np.random.get_state()[1].copy()
    draw_hand(_rng(3))
    assert np.array_equal(before, np.random.get_state()[1])


def test_iid_ranks_are_uniform_given_that_the_hand_is_solvable():
    """Compare with the exact distribution over the 13**4 hands of ranks."""
    rule = RULES["face_10"]
    weight: Counter[str] = Counter()
    for ranks in combinations_with_replacement(rule.ranks, 4):
        if is_solvable([rule.number(rank) for rank in ranks], 24):
            orders = 24
            for count in Counter(ranks).values():
                orders //= [1, 1, 2, 6, 24][count]
            for rank in ranks:
                weight[rank] += orders
    hands = draw_hands(_rng(1), HandSpec(), 20_000)
    found = np.bincount(hands.ranks.ravel(), minlength=13) / 80_000
    expected = np.array([weight[rank] for rank in rule.ranks]) / weight.total()
    assert np.abs(found - expected).max() < 0.005


@pytest.mark.parametrize(("suits", "letters"), [("black", "SC"), ("red", "HD"), ("mixed", "SHCD")])
def test_suits(suits, letters):
    hands = draw_hands(_rng(), HandSpec(suits=suits), 50)
    assert {card.suit for i in range(50) for card in hands[i].cards} == set(letters)


def test_need_face_and_other_numbers_of_cards_and_targets():
    hands = draw_hands(_rng(), HandSpec("face_11_12_13", need_face=True), 100)
    assert all(holds_face(hands[i].cards) for i in range(100))
    hand = draw_hand(_rng(), "face_10", num_cards=5, target=36)
    assert len(hand.numbers) == 5
    assert is_solvable(hand.numbers, 36)


def test_accept_redraws():
    hand = draw_hand(
        _rng(), RULES["face_10"], accept=lambda numbers, target: numbers[0] == numbers[1] and target == 24
    )
    assert sorted(hand.numbers)[0] == sorted(hand.numbers)[1]


def test_the_partition_is_by_numbers_not_ranks_or_order_and_near_the_share():
    solvable = [n for n in combinations_with_replacement(range(1, 14), 4) if is_solvable(n, 24)]
    assert len(solvable) == 1362
    held = [numbers for numbers in solvable if is_held_out(numbers)]
    assert 0.07 < len(held) / len(solvable) < 0.13
    assert all(is_held_out(numbers[::-1]) for numbers in held)
    seen = draw_hands(_rng(), HandSpec(part="seen"), 500)
    unseen = draw_hands(_rng(), HandSpec(part="held_out"), 500)
    assert not any(is_held_out(seen[i].numbers) for i in range(500))
    assert all(is_held_out(unseen[i].numbers) for i in range(500))
    assert not any(is_held_out(numbers, holdout=0.0) for numbers in solvable)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "face_1"}, "Did you mean 'face_10'"),
        ({"draw": "dek"}, "Did you mean 'deck'"),
        ({"part": "unseen"}, "Did you mean 'seen'"),
        ({"num_cards": 7}, "expected 3 to 6"),
        ({"holdout": 1.5}, "share between 0 and 1"),
    ],
)
def test_wrong_specs(change, words):
    with pytest.raises(SftrlError, match=words):
        HandSpec(**change)


def test_an_unreachable_target_ends_with_an_error():
    with pytest.raises(SftrlError, match="is the target reachable"):
        draw_hands(_rng(), HandSpec(target=10**9), 1)
