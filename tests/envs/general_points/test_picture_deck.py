"""A deck of card pictures from a folder: what is drawn, and what is wrong with a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from data_prep.general_points import rl_rows
from data_prep.sources import Source
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs.general_points.cards import RANKS, SUITS, Card, parse_cards
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.render import Look, draw_card, draw_hand
from sftrl_ext.envs.general_points.render.picture_deck import card_of, picture_deck
from sftrl_ext.errors import SftrlError

HAND = parse_cards(["KS", "10H", "7D", "QC"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """52 cards of one colour each, with a transparent rim of a tenth."""
    folder = tmp_path_factory.mktemp("deck")
    for i, suit in enumerate(SUITS):
        for j, rank in enumerate(RANKS):
            image = Image.new("RGBA", (100, 140), (0, 0, 0, 0))
            image.paste((10 + 15 * j, 60 * i, 200, 255), (10, 14, 90, 126))
            image.save(folder / f"{rank}{suit}.png")
    (folder / "back.png").write_bytes(b"not read")
    return folder


@pytest.fixture
def deck(pictures, tmp_path):
    return shutil.copytree(pictures, tmp_path / "deck")


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("KS", "KS"), ("10h", "10H"), ("S_K", "KS"), ("c10", "10C"), ("king_of_spades", "KS"),
        ("2 of Clubs", "2C"), ("ace-of-hearts", "AH"), ("diamonds_7", "7D"), ("16S", "16S"),
        ("back", None), ("11S", None), ("king", None), ("KSS", None), ("red_joker", None),
    ],
)  # fmt: skip
def test_a_file_is_named_after_its_card(name, card):
    assert card_of(name) == card


@pytest.mark.parametrize("arrangement", ["row", "overlap"])
def test_a_hand_shows_the_pictures_on_the_table(pictures, arrangement):
    image = draw_hand(HAND, Look(deck=str(pictures), arrangement=arrangement), seed=1)
    colors = {color for _, color in image.getcolors(1 << 20)}
    for card in HAND:
        wanted = (10 + 15 * RANKS.index(card.rank), 60 * list(SUITS).index(card.suit), 200)
        assert wanted in colors
    if arrangement == "row":
        pixels = np.asarray(image)
        assert tuple(pixels[411 + 189, 5 + 135]) == (10 + 15 * 12, 0, 200)
        for x in (5, 302, 599, 896):  # what is transparent shows the table
            assert tuple(pixels[411 + 5, x + 5]) == (53, 101, 77)
            assert tuple(pixels[411 + 5, x + 135]) == (53, 101, 77)


def test_pictures_of_a_drawn_deck_look_like_it(tmp_path):
    for card in HAND:
        draw_card(card, 540, 756).save(tmp_path / f"{card}.png")
    drawn, shown = (
        np.asarray(draw_hand(HAND, look), dtype=int) for look in (Look(), Look(deck=str(tmp_path)))
    )
    inside = (slice(411 + 10, 411 + 368), slice(5 + 10, 5 + 260))
    assert np.abs(drawn[inside] - shown[inside]).mean() < 2
    turned = Look(600, 600, deck=str(tmp_path), arrangement="rotated")
    assert draw_hand(HAND, turned, 3).tobytes() == draw_hand(HAND, turned, 3).tobytes()


def test_the_folder_is_absolute_in_the_look(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    look = Look(deck=pictures.name)
    assert look.deck == str(pictures.resolve())
    assert Look(**json.loads(json.dumps(asdict(look)))) == look


def test_a_missing_folder_and_a_misspelt_name_are_told_apart(tmp_path):
    with pytest.raises(SftrlError, match=r"none: no such folder of card pictures; expected PNG files"):
        Look(deck=str(tmp_path / "none"))
    with pytest.raises(
        SftrlError, match="unknown deck 'clasic'. Did you mean 'classic'.* A folder of card pictures"
    ):
        Look(deck="clasic")
    with pytest.raises(SftrlError, match="no picture of a card; expected PNG files"):
        Look(deck=str(tmp_path))


def test_a_picture_of_another_size_is_named(deck):
    Image.new("RGB", (100, 141)).save(deck / "7D.png")
    with pytest.raises(SftrlError, match=r"7D.png: 100x141 pixels; expected 100x140, as 10C.png has"):
        Look(deck=str(deck))


def test_pictures_in_the_shape_of_a_square_are_refused(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "7D.png")
    with pytest.raises(
        SftrlError, match=r"7D.png: 100x100 pixels, a width of 1.00 heights; expected 0.6 to 0.8"
    ):
        Look(deck=str(tmp_path))


def test_a_broken_picture_and_a_card_twice_are_named(deck):
    (deck / "king_of_spades.png").write_bytes(b"no picture")
    with pytest.raises(SftrlError, match="KS.png and king_of_spades.png are both the card KS"):
        Look(deck=str(deck))
    (deck / "KS.png").unlink()
    with pytest.raises(SftrlError, match=r"king_of_spades.png: cannot be read .*; expected a PNG file"):
        Look(deck=str(deck))


def test_missing_cards_are_named_before_any_row_is_made(deck, tmp_path):
    for name in ("KS", "QS", "3C"):
        (deck / f"{name}.png").unlink()
    settings = PlaySettings(modality="image", look=Look(deck=str(deck)))
    with pytest.raises(SftrlError, match=r"deck: no picture of the cards 3C, QS, KS; found 49\."):
        next(rl_rows(Source("id", settings=settings), 4))
    red = Source("visual_ood", settings=settings)  # hearts and diamonds are all there
    write_rows(tmp_path / "red.parquet", rl_rows(red, 4))
    assert validate_file(tmp_path / "red.parquet").rows == 4
    with pytest.raises(SftrlError, match="no picture of the cards 3C;"):
        draw_hand([Card("3", "C"), *HAND[:3]], settings.look)
    with pytest.raises(
        SftrlError, match=r"no picture of the cards 3C, QS, KS, 14S, 14H, 14C, .*, \.\.; found"
    ):
        next(rl_rows(Source("large", settings=settings, hands={"suits": "mixed"}), 4))


def test_the_digest_is_of_the_pictures_not_of_the_place(deck, pictures):
    assert picture_deck(deck).digest() == picture_deck(pictures).digest()
    Image.new("RGB", (100, 140), (1, 2, 3)).save(deck / "7D.png")
    assert picture_deck(deck).digest() != picture_deck(pictures).digest()


def test_rows_of_a_folder_are_built_by_the_command(pictures, tmp_path):
    out = tmp_path / "rows.parquet"
    words = [
        "data",
        "rl",
        "--modality",
        "image",
        "--rows",
        "3",
        "--look",
        f"deck={pictures}",
        "--embed-images",
    ]
    assert main([*words, "--out", str(out)]) == 0
    assert validate_file(out).pictures == 3
