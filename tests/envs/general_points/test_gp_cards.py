from __future__ import annotations

import pytest

from sftrl_ext.envs.general_points.cards import (
    LARGE_RANKS,
    RANKS,
    SUITS,
    Card,
    parse_card,
    parse_cards,
    suits_of,
)
from sftrl_ext.errors import SftrlError


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("K", Card("K")),
        ("k", Card("K")),
        ("KS", Card("K", "S")),
        ("10h", Card("10", "H")),
        ("10♥", Card("10", "H")),
        (" A♦ ", Card("A", "D")),
        ("19C", Card("19", "C")),
        (7, Card("7")),
    ],
)
def test_a_card_is_read_in_all_its_forms(text, card):
    assert parse_card(text) == card


@pytest.mark.parametrize("text", ["", "S", "1", "11", "20", "KK", "KX", "K SS", None, "♠"])
def test_what_is_no_card_is_named(text):
    with pytest.raises(SftrlError, match="is not a card"):
        parse_card(text)


def test_every_card_survives_being_written_and_read():
    for rank in RANKS + LARGE_RANKS:
        for suit in ("", *SUITS):
            card = Card(rank, suit)
            assert parse_card(str(card)) == card
            assert parse_card(card.symbol) == card


def test_a_hand_is_a_list():
    assert [card.rank for card in parse_cards(["K", Card("5"), "2♠"])] == ["K", "5", "2"]
    with pytest.raises(SftrlError, match="must be a list"):
        parse_cards("K524")
    with pytest.raises(SftrlError, match="empty"):
        parse_cards([])


def test_suit_names():
    assert set(suits_of("black")) | set(suits_of("red")) == set(suits_of("mixed")) == set(SUITS)
    with pytest.raises(SftrlError, match="Did you mean 'black'"):
        suits_of("blac")
