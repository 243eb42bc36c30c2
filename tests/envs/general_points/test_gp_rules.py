from __future__ import annotations

import pytest

from sftrl_ext.envs.general_points.cards import RANKS, Card, parse_cards
from sftrl_ext.envs.general_points.rules import RULES, Rule, holds_face, register_rule
from sftrl_ext.errors import SftrlError


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("face_10", (1, 10, 10, 10, 10)),
        ("face_11_12_13", (1, 10, 11, 12, 13)),
        ("all_5", (1, 10, 5, 5, 5)),
        ("all_7", (1, 10, 7, 7, 7)),
        ("all_12", (1, 10, 12, 12, 12)),
        ("large", (1, 10, 10, 10, 10)),
    ],
)
def test_the_numbers_of_every_rule(rule, numbers):
    assert RULES[rule].numbers(parse_cards(["A", "10", "J", "Q", "K"])) == numbers
    assert RULES[rule].numbers(parse_cards(["2", "9"])) == (2, 9)


def test_only_the_large_rule_has_large_cards():
    assert RULES["large"].numbers([Card("19")]) == (19,)
    assert RULES["face_10"].ranks == RANKS
    with pytest.raises(SftrlError, match="has no card '14'"):
        RULES["face_10"].numbers([Card("14")])


def test_statements_say_every_value_and_differ():
    statements = {rule.statement for rule in map(RULES.__getitem__, RULES)}
    assert len(statements) == len(RULES)
    for name in RULES:
        rule = RULES[name]
        for value in (rule.jack, rule.queen, rule.king):
            assert str(value) in rule.statement


def test_a_rule_is_added_with_one_line_and_a_name_is_taken_once(monkeypatch):
    monkeypatch.setattr(RULES, "_items", dict(RULES._items))
    rule = register_rule(Rule("all_3", 3, 3, 3))
    assert register_rule(Rule("all_3", 3, 3, 3)) == RULES["all_3"] == rule
    with pytest.raises(SftrlError, match="registered already"):
        register_rule(Rule("all_3", 4, 4, 4))


def test_wrong_rules():
    with pytest.raises(SftrlError, match="Did you mean 'face_10'"):
        RULES["face10"]
    with pytest.raises(SftrlError, match="J counts 0"):
        Rule("zero", 0, 1, 1)


def test_holds_face():
    assert holds_face(parse_cards(["2", "J"]))
    assert not holds_face(parse_cards(["A", "10"]))
