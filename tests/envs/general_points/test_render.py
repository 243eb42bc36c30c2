from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sftrl_ext.envs.cache import ByteCache
from sftrl_ext.envs.general_points.cards import LARGE_RANKS, RANKS, SUITS, Card, parse_cards
from sftrl_ext.envs.general_points.render import (
    ARRANGEMENTS,
    DECKS,
    TABLES,
    Look,
    draw_card,
    draw_hand,
)
from sftrl_ext.envs.general_points.render.decks import INDEX_BOX, PIPS, card_mask
from sftrl_ext.envs.general_points.render.draw import image_bytes
from sftrl_ext.envs.general_points.render.letters import ANGULAR, ROUND
from sftrl_ext.errors import SftrlError
from tests.envs.general_points.card_sheets import deck_sheet, variants_sheet

HAND = parse_cards(["KS", "10H", "7D", "QC"])
ALL_CARDS = [Card(rank, suit) for suit in SUITS for rank in RANKS + LARGE_RANKS]
FIGURES = Path(__file__).parents[3] / "docs" / "figures"


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def ink_share(image: Image.Image, color: tuple[int, int, int]) -> float:
    """Share of pixels near a colour."""
    return float((np.abs(array(image) - color).max(axis=-1) < 40).mean())


@pytest.mark.parametrize("deck", DECKS)
def test_all_cards_differ_at_the_smallest_readable_size(deck):
    drawn = {str(card): array(draw_card(card, 50, 70, deck)) for card in ALL_CARDS}
    near = {(a, b): np.abs(drawn[a] - drawn[b]).mean() for a, b in combinations(drawn, 2)}
    pair = min(near, key=near.__getitem__)
    assert near[pair] > 1.5, (pair, near[pair])


@pytest.mark.parametrize("deck", DECKS)
def test_the_corner_alone_tells_every_card(deck):
    left, top, right, bottom = (round(side / 5) for side in INDEX_BOX)
    drawn = {str(card): array(draw_card(card, 50, 70, deck))[top:bottom, left:right] for card in ALL_CARDS}
    near = {(a, b): np.abs(drawn[a] - drawn[b]).mean() for a, b in combinations(drawn, 2)}
    pair = min(near, key=near.__getitem__)
    assert near[pair] > 5, (pair, near[pair])


@pytest.mark.parametrize("deck", DECKS)
def test_the_other_corner_shows_the_same_upside_down(deck):
    for card in parse_cards(["6S", "10H", "QC", "19D"]):
        face = draw_card(card, 250, 350, deck)
        turned = array(face.transpose(Image.Transpose.ROTATE_180).crop(INDEX_BOX))
        assert np.abs(turned - array(face.crop(INDEX_BOX))).mean() < 4


def test_each_rank_has_as_many_pips_as_it_counts():
    assert [len(PIPS[rank]) for rank in RANKS[:10]] == list(range(1, 11))
    for places in PIPS.values():
        assert sorted((250 - x, y) for x, y in places) == sorted(places)


def test_both_letterings_write_every_rank():
    assert set(ROUND.glyphs) == set(ANGULAR.glyphs) == set("".join(RANKS + LARGE_RANKS))


@pytest.mark.parametrize("deck", DECKS)
def test_suits_have_the_colour_of_their_ink(deck):
    red, black = DECKS[deck].red, DECKS[deck].black
    for rank in RANKS + LARGE_RANKS:
        for suit in SUITS:
            face = draw_card(Card(rank, suit), 135, 189, deck)
            own, other = (red, black) if suit in "HD" else (black, red)
            assert ink_share(face, own) > 0.025 + ink_share(face, other)


def test_classic_red_is_red_and_black_is_grey():
    for rank in RANKS[:10]:
        for suit in SUITS:
            pixels = array(draw_card(Card(rank, suit), 50, 70))
            redness = (pixels[..., 0] - pixels[..., 1]).max()
            assert redness > 120 if suit in "HD" else redness < 20


@pytest.mark.parametrize("size", [(1200, 1200), (336, 336), (224, 84), (32, 32), (33, 900)])
@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_a_picture_is_rgb_of_its_size(size, count):
    hand = (HAND + HAND)[:count]
    image = draw_hand(hand, Look(*size))
    assert image.mode == "RGB" and image.size == size


def test_the_layout_of_the_paper():
    spots = ARRANGEMENTS["row"].arrange(4, 1200, 1200, 0)
    assert [(s.left, s.top, s.width, s.height) for s in spots] == [
        (x, 411, 270, 378) for x in (5, 302, 599, 896)
    ]
    assert TABLES["green"].color == (53, 101, 77)
    image = draw_hand(HAND)
    pixels = array(image)
    on_card = np.zeros((1200, 1200), dtype=bool)
    for card, spot in zip(HAND, spots, strict=True):
        box = (spot.left, spot.top, spot.left + 270, spot.top + 378)
        on_card[box[1] : box[3], box[0] : box[2]] = True
        solid = array(card_mask(270, 378)) == 255
        assert solid.mean() > 0.99
        assert (array(image.crop(box)) == array(draw_card(card, 270, 378)))[solid].all()
    assert (pixels[~on_card] == TABLES["green"].color).all()
    assert (pixels[spots[0].top, spots[0].left] == TABLES["green"].color).all()


@pytest.mark.parametrize(
    ("count", "size", "card"),
    [
        (4, (336, 336), (75, 105)),
        (4, (224, 224), (51, 71)),
        (4, (224, 84), (53, 74)),
        (3, (1200, 1200), (368, 515)),
        (5, (1200, 1200), (368, 515)),
        (6, (1200, 1200), (368, 515)),
        (6, (1200, 300), (193, 270)),
    ],
)
def test_cards_are_as_large_as_the_gaps_allow(count, size, card):
    spots = ARRANGEMENTS["row"].arrange(count, *size, 0)
    assert {(s.width, s.height) for s in spots} == {card}


@given(st.integers(3, 6), st.integers(32, 2000), st.integers(32, 2000))
@example(5, 161, 46)
@example(6, 151, 32)
def test_cards_in_rows_stay_apart_on_the_canvas_and_vertically_centred(count, width, height):
    spots = ARRANGEMENTS["row"].arrange(count, width, height, 0)
    for s in spots:
        assert s.left >= 1 and s.top >= 1
        assert s.left + s.width < width and s.top + s.height < height
    for a, b in combinations(spots, 2):
        assert a.left + a.width < b.left or a.top + a.height < b.top
    above, below = spots[0].top, height - spots[-1].top - spots[-1].height
    assert abs(above - below) <= 1


@given(st.integers(3, 6), st.integers(32, 2000), st.integers(32, 2000), st.integers(0, 2**63))
def test_no_rank_is_covered_in_overlap(count, width, height, seed):
    spots = ARRANGEMENTS["overlap"].arrange(count, width, height, seed)
    for a, b in combinations(spots, 2):
        scale = a.width / 250
        right, bottom = a.left + INDEX_BOX[2] * scale, a.top + INDEX_BOX[3] * scale
        assert b.left + 0.5 >= right or b.top + 1 >= bottom
    assert all(0 <= s.left <= width - s.width and 0 <= s.top <= height - s.height for s in spots)


@pytest.mark.parametrize("seed", range(4))
def test_ranks_in_overlap_look_as_on_the_card(seed):
    image = draw_hand(HAND, Look(1000, 1000, arrangement="overlap"), seed)
    for card, s in zip(HAND, ARRANGEMENTS["overlap"].arrange(4, 1000, 1000, seed), strict=True):
        face = draw_card(card, s.width, s.height)
        box = [round(side * s.width / 250) for side in INDEX_BOX]
        there = image.crop((s.left + box[0], s.top + box[1], s.left + box[2], s.top + box[3]))
        assert (array(there) == array(face.crop(tuple(box)))).all()


@given(st.integers(3, 6), st.integers(64, 2000), st.integers(64, 2000), st.integers(0, 2**63))
def test_rotated_cards_neither_touch_nor_leave_the_canvas(count, width, height, seed):
    for s in (spots := ARRANGEMENTS["rotated"].arrange(count, width, height, seed)):
        assert 4 <= abs(s.angle) <= 12
        angle = np.radians(abs(s.angle))
        across = s.width * np.cos(angle) + s.height * np.sin(angle)
        down = s.width * np.sin(angle) + s.height * np.cos(angle)
        assert abs(2 * s.left + s.width - width) + across < width + 2
        assert abs(2 * s.top + s.height - height) + down < height + 2
    widest = s.width * np.cos(np.radians(12)) + s.height * np.sin(np.radians(12))
    for a, b in combinations(spots, 2):
        assert a.top != b.top or b.left - a.left > widest - 2


def test_turned_cards_are_the_cards():
    look = Look(1200, 500, arrangement="rotated")
    image = draw_hand(HAND, look, seed=3)
    for card, s in zip(HAND, ARRANGEMENTS["rotated"].arrange(4, 1200, 500, 3), strict=True):
        middle = s.left + s.width / 2, s.top + s.height / 2
        upright = image.rotate(-s.angle, Image.Resampling.BICUBIC, center=middle)
        there = upright.crop((s.left, s.top, s.left + s.width, s.top + s.height))
        expected = draw_card(card, s.width, s.height)
        assert np.abs(array(there) - array(expected)).mean() < 8


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_the_same_arguments_give_the_same_picture(arrangement):
    look = Look(336, 336, arrangement=arrangement)
    first = draw_hand(HAND, look, seed=11)
    assert draw_hand(list(HAND), Look(**asdict(look)), seed=11).tobytes() == first.tobytes()
    others = {draw_hand(HAND, look, seed=seed).tobytes() for seed in range(5)}
    assert len(others) == (1 if arrangement == "row" else 5)


def test_the_default_is_the_row_of_the_paper():
    assert draw_hand(HAND).tobytes() == draw_hand(HAND, Look(), seed=9).tobytes()


def test_pictures_are_independent():
    for look in (Look(224, 84), Look(224, 84, table="wood"), Look(224, 84, arrangement="rotated")):
        image = draw_hand(HAND, look)
        kept = image.tobytes()
        image.paste((1, 2, 3), (0, 0, *image.size))
        assert draw_hand(HAND, look).tobytes() == kept


def test_nothing_random_is_shared():
    before = np.random.get_state()[1].tolist()
    draw_hand(HAND, Look(224, 84, table="wood", arrangement="overlap"), seed=1)
    assert np.random.get_state()[1].tolist() == before


def test_every_field_of_the_look_shows():
    base = Look(224, 224)
    looks = [base, replace(base, height=112)]
    looks += [replace(base, table=name) for name in TABLES if name != base.table]
    looks += [replace(base, deck=name) for name in DECKS if name != base.deck]
    looks += [replace(base, arrangement=name) for name in ARRANGEMENTS if name != base.arrangement]
    assert len({draw_hand(HAND, look).tobytes() for look in looks}) == len(looks)


def test_a_look_survives_json():
    look = Look(224, 84, "wood", "plain", "overlap")
    assert Look(**json.loads(json.dumps(asdict(look)))) == look


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"table": "gren"}, "unknown table 'gren'. Did you mean 'green'"),
        ({"deck": "clasic"}, "unknown deck 'clasic'. Did you mean 'classic'"),
        ({"arrangement": "rotate"}, "unknown arrangement 'rotate'. Did you mean 'rotated'"),
        ({"table": ["green"]}, "unknown table"),
        ({"width": 31}, "width of a picture must be a whole number of pixels from 32 to 8192, found 31"),
        ({"height": 8193}, "height of a picture"),
        ({"height": 224.0}, "height of a picture"),
        ({"width": True}, "width of a picture"),
    ],
)
def test_a_wrong_look_is_explained(fields, message):
    with pytest.raises(SftrlError, match=message):
        Look(**fields)


@pytest.mark.parametrize(
    ("cards", "seed", "message"),
    [
        ([Card("K"), *HAND[1:]], 0, "cannot draw the card 'K'"),
        ([Card("K", "X"), *HAND[1:]], 0, "cannot draw the card 'KX'"),
        ([Card("1", "S"), *HAND[1:]], 0, "cannot draw the card '1S'"),
        (HAND[:2], 0, "3 to 6 cards, found 2"),
        (HAND + HAND, 0, "3 to 6 cards, found 8"),
        (HAND, -1, "seed of a picture must be a whole number >= 0, found -1"),
    ],
)
def test_what_cannot_be_drawn_is_explained(cards, seed, message):
    with pytest.raises(SftrlError, match=message):
        draw_hand(cards, Look(224, 84), seed)


def test_the_memory_of_images_has_a_bound():
    cache = ByteCache(10 * image_bytes(Image.new("RGB", (10, 10))), image_bytes)
    made = []

    def make(number: int, side: int = 10) -> Image.Image:
        made.append(number)
        return Image.new("RGB", (side, side))

    for number in range(30):
        cache.get(make, number)
        cache.get(make, 0)
    assert cache.size <= cache.at_most and len(cache) == 10
    assert made == list(range(30))
    cache.get(make, 99, 1000)
    assert len(cache) == 10


looks = st.builds(
    Look,
    width=st.integers(32, 300),
    height=st.integers(32, 300),
    table=st.sampled_from(sorted(TABLES)),
    deck=st.sampled_from(sorted(DECKS)),
    arrangement=st.sampled_from(sorted(ARRANGEMENTS)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(ALL_CARDS), min_size=3, max_size=6), looks, st.integers(0, 2**63))
def test_any_hand_in_any_look(cards, look, seed):
    image = draw_hand(cards, look, seed)
    assert image.mode == "RGB" and image.size == (look.width, look.height)
    assert image.tobytes() == draw_hand(cards, look, seed).tobytes()
    assert len(np.unique(array(image).reshape(-1, 3), axis=0)) > 3


@pytest.mark.parametrize(("name", "sheet"), [("cards-deck", deck_sheet), ("cards-variants", variants_sheet)])
def test_the_figures_in_the_documentation_are_up_to_date(name, sheet):
    path = FIGURES / f"{name}.png"
    assert path.stat().st_size < 200_000
    shown, now = Image.open(path).convert("RGB"), sheet()
    assert shown.size == now.size
    assert np.abs(array(shown) - array(now)).mean() < 3
