"""Sheets that show every card and every look.

Write them with ``python -m tests.envs.general_points.card_sheets docs/figures``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from sftrl_ext.envs.general_points.cards import LARGE_RANKS, RANKS, SUITS, Card, parse_cards
from sftrl_ext.envs.general_points.render.decks import card_mask, draw_card
from sftrl_ext.envs.general_points.render.draw import Look, draw_hand
from sftrl_ext.envs.general_points.render.shapes import Color
from sftrl_ext.envs.general_points.render.tables import TABLES

_WHITE: Color = (255, 255, 255)
_MARGIN = 6


def deck_sheet(width: int = 84, deck: str = "classic") -> Image.Image:
    """All cards of a deck, one suit a row, on the paper's table."""
    height = round(width * 7 / 5)
    ranks = RANKS + LARGE_RANKS
    step_x, step_y = width + _MARGIN, height + _MARGIN
    size = len(ranks) * step_x + _MARGIN, len(SUITS) * step_y + _MARGIN
    sheet = Image.new("RGB", size, TABLES["green"].color)
    for j, suit in enumerate(SUITS):
        for i, rank in enumerate(ranks):
            corner = _MARGIN + i * step_x, _MARGIN + j * step_y
            sheet.paste(draw_card(Card(rank, suit), width, height, deck), corner, card_mask(width, height))
    return sheet


def variants_sheet() -> Image.Image:
    """One hand in every table, deck and arrangement, and at the sizes used most."""
    hand = parse_cards(["KS", "10H", "7D", "QC"])
    six = parse_cards(["AS", "JH", "9D", "3C", "16H", "5S"])
    small = Look(400, 160)
    looks = [
        [small, replace(small, table="blue")],
        [replace(small, table="grey"), replace(small, table="wood")],
        [replace(small, deck="plain"), replace(small, deck="night", table="blue")],
        [replace(small, arrangement="rotated"), replace(small, arrangement="overlap")],
    ]
    rows = [[draw_hand(hand, look, seed=2) for look in line] for line in looks]
    small_ones = [draw_hand(hand, Look(224, height)) for height in (224, 84)]
    rows.append([*small_ones, draw_hand(six, Look(346, 224))])
    lines = [_side_by_side(images) for images in rows]
    size = max(line.width for line in lines), sum(line.height + _MARGIN for line in lines) - _MARGIN
    sheet = Image.new("RGB", size, _WHITE)
    top = 0
    for line in lines:
        sheet.paste(line, (0, top))
        top += line.height + _MARGIN
    return sheet


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width = sum(image.width + _MARGIN for image in images) - _MARGIN
    row = Image.new("RGB", (width, max(image.height for image in images)), _WHITE)
    left = 0
    for image in images:
        row.paste(image, (left, (row.height - image.height) // 2))
        left += image.width + _MARGIN
    return row


def write_sheets(folder: Path) -> list[Path]:
    """Write both sheets as PNG files of at most 256 colours."""
    paths = []
    for name, sheet in (("cards-deck", deck_sheet()), ("cards-variants", variants_sheet())):
        paths.append(folder / f"{name}.png")
        sheet.quantize(256, dither=Image.Dither.NONE).save(paths[-1], optimize=True)
    return paths


if __name__ == "__main__":
    write_sheets(Path(sys.argv[1]))
