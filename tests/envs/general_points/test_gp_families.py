"""Families of card rules: their names, what they hold out, and the shares that steer their hands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sftrl_ext.envs.general_points.cards import FACES
from sftrl_ext.envs.general_points.env import GeneralPointsEnv
from sftrl_ext.envs.general_points.families import FAMILIES, RuleFamily, find_rules, register_family
from sftrl_ext.envs.general_points.hands import HandSpec, draw_hands, is_held_out
from sftrl_ext.envs.general_points.rules import (
    RULES,
    Rule,
    bindings_of,
    drawn_rule,
    held_out_bindings,
    register_rule,
)
from sftrl_ext.envs.general_points.shares import draw_shares
from sftrl_ext.envs.general_points.solver import is_solvable
from sftrl_ext.errors import SftrlError

FAMILY = FAMILIES["other_faces"]


def test_the_name_of_a_drawn_rule_gives_the_rule():
    rule = drawn_rule(3, 7, 11)
    assert rule.name == "faces_3_7_11"
    assert RULES[rule.name] == rule and rule.name in RULES
    assert rule.name not in list(RULES)
    assert [str(binding) for binding in bindings_of(rule)] == ["J=3", "Q=7", "K=11"]
    assert rule.statement == (
        "A counts as 1, J counts as 3, Q counts as 7, K counts as 11, "
        "and every other card counts as the number on it."
    )


@pytest.mark.parametrize(
    "name", ["faces_3_7", "faces_3_7_0", "faces_03_7_9", "faces_3_7_9_1", "faces_3_7_1000", "faces_a_b_c"]
)
def test_a_malformed_name_is_refused(name):
    assert name not in RULES
    for read in (RULES.__getitem__, find_rules, HandSpec):
        with pytest.raises(SftrlError, match=f"card rule '{name}': expected faces_<J>_<Q>_<K>"):
            read(name)


def test_unknown_and_taken_names():
    with pytest.raises(SftrlError, match="Did you mean 'other_faces'"):
        find_rules("other_face")
    with pytest.raises(SftrlError, match="begin with 'faces_'"):
        register_rule(Rule("faces_3_7_9", 1, 1, 1))
    with pytest.raises(SftrlError, match="a card rule has this name"):
        register_family(RuleFamily("all_5", values=((1, 2),) * 3))
    with pytest.raises(SftrlError, match="registered already"):
        register_family(RuleFamily("other_faces", values=((1, 2),) * 3))


def test_entries_of_held_out():
    single = held_out_bindings(["face_11_12_13", "K=13", "J=3"])
    assert [[str(binding) for binding in held] for held in single] == [["J=11"], ["Q=12"], ["K=13"], ["J=3"]]
    [together] = held_out_bindings(["J=5 Q=5 K=5"])
    assert together == frozenset(bindings_of(RULES["all_5"]))
    for entry in ("face_9", "J", "J=0", "J=5 J=6", "A=1", "J=5,Q=5", "", "other_faces"):
        with pytest.raises(SftrlError, match=f"held-out binding '{entry}': expected"):
            held_out_bindings([entry])


def test_no_drawn_rule_has_what_is_held_out():
    drawn = FAMILY.draw(np.random.default_rng(0), 40_000)
    assert drawn.shape == (40_000, 3)
    rules = set(map(tuple, drawn.tolist()))
    assert len(rules) == 11**3 - 1, "every rule that is left, but J = Q = K = 5"
    assert not {(j, q, k) for j, q, k in rules if j in (10, 11) or q in (10, 12) or k in (10, 13)}
    assert (5, 5, 5) not in rules and (5, 5, 4) in rules
    assert (drawn > 10).mean() == pytest.approx(FAMILY.large_share, abs=0.01)
    even = RuleFamily("even", values=((1, 4), (2, 2), (1, 20))).draw(np.random.default_rng(0), 4000)
    assert np.bincount(even[:, 0]).tolist()[1:] == pytest.approx([1000] * 4, abs=120)


def test_hands_of_a_family():
    spec = HandSpec("other_faces", num_cards=3, targets=(1, 30), part="seen")
    hands = draw_hands(np.random.default_rng(1), spec, 2000)
    drawn = [hands[i] for i in range(len(hands))]
    for hand in drawn:
        assert RULES[hand.rule.name] == hand.rule
        assert len(hand.cards) == 3 and 1 <= hand.target <= 30
        assert is_solvable(hand.numbers, hand.target)
        assert not is_held_out(hand.numbers, hand.target)
    assert len({hand.rule for hand in drawn}) > 800
    assert len({hand.target for hand in drawn}) == 30
    faces = [sum(card.rank in FACES for card in hand.cards) / 3 for hand in drawn]
    assert np.mean(faces) == pytest.approx(FAMILY.face_share, abs=0.06)


def test_targets_of_one_rule():
    for part in ("seen", "held_out"):
        hands = draw_hands(np.random.default_rng(2), HandSpec(num_cards=3, targets=(1, 30), part=part), 300)
        for i in range(len(hands)):
            assert is_held_out(hands[i].numbers, hands[i].target) == (part == "held_out")
            assert is_solvable(hands[i].numbers, hands[i].target) and hands[i].rule.name == "face_10"


def test_exact_shares_are_over_all_targets():
    spec = HandSpec("face_11_12_13", num_cards=3, need_face=True, targets=(20, 24))
    each = [draw_shares(replace(spec, targets=None, target=target)) for target in range(20, 25)]
    assert draw_shares(spec).kept == sum(shares.kept for shares in each) / 5
    weighted = sum(shares.one_face * shares.kept for shares in each)
    assert draw_shares(spec).one_face == weighted / sum(shares.kept for shares in each)


def test_an_environment_has_one_rule():
    with pytest.raises(SftrlError, match="unknown card rule 'other_faces'"):
        GeneralPointsEnv(rule="other_faces")
    assert GeneralPointsEnv(rule="faces_3_7_9").reset(seed=0)[1]["rule"] == "faces_3_7_9"


@pytest.mark.parametrize("targets", [(1,), (0, 3), (9, 3), (1.0, 3), (1, 2, 3)])
def test_wrong_targets(targets):
    with pytest.raises(SftrlError, match="expected two whole numbers"):
        HandSpec(targets=targets)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": ((1, 9), (0, 9), (1, 9))}, "Q counts 0 to 9"),
        ({"values": ((1, 9), (1, 9), (5, 5)), "held_out": ("K=5",)}, "K has the numbers \\[\\] left"),
        ({"large_share": 0.5}, "some above"),
        ({"face_share": 1.5}, "face_share is 1.5"),
        ({"held_out": ("K5",)}, "held-out binding 'K5'"),
    ],
)
def test_wrong_families(change, words):
    with pytest.raises(SftrlError, match=words):
        RuleFamily(**({"name": "mine", "values": ((1, 9),) * 3} | change))


def test_a_family_without_rules_ends_with_an_error():
    empty = RuleFamily("empty", values=((5, 5),) * 3, held_out=("J=5 Q=5 K=5",))
    with pytest.raises(SftrlError, match="no rule is left"):
        empty.draw(np.random.default_rng(0), 1)
