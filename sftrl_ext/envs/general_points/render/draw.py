"""Pictures of hands: `Look` says how one is drawn, `draw_hand` draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFilter

from sftrl_ext.envs.cache import ByteCache
from sftrl_ext.envs.general_points.cards import Card
from sftrl_ext.envs.general_points.render.arrange import ARRANGEMENTS
from sftrl_ext.envs.general_points.render.decks import card_shape, check_deck, draw_card, edge_color
from sftrl_ext.envs.general_points.render.shapes import Color
from sftrl_ext.envs.general_points.render.tables import TABLES
from sftrl_ext.errors import SftrlError

SIDES = (32, 8192)
"""Least and greatest width and height of a picture, in pixels."""

HAND_SIZES = (3, 6)
"""Least and greatest number of cards in a picture."""


@dataclass(frozen=True)
class Look:
    """Look of a drawn hand. The defaults are the paper's; all values are plain, so `asdict` goes into JSON.

    Attributes:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        table: A name of `TABLES`.
        deck: A name of `DECKS`, or the path of a folder of card pictures, which is made absolute.
        arrangement: A name of `ARRANGEMENTS`.
    """

    width: int = 1200
    height: int = 1200
    table: str = "green"
    deck: str = "classic"
    arrangement: str = "row"

    def __post_init__(self) -> None:
        for side in ("width", "height"):
            value = getattr(self, side)
            if type(value) is not int or not SIDES[0] <= value <= SIDES[1]:
                raise SftrlError(
                    f"the {side} of a picture must be a whole number of pixels from {SIDES[0]} "
                    f"to {SIDES[1]}, found {value!r}."
                )
        TABLES[self.table]
        object.__setattr__(self, "deck", check_deck(self.deck))
        ARRANGEMENTS[self.arrangement]


PAPER_LOOK = Look()
"""The paper's pictures."""


def image_bytes(image: Image.Image) -> int:
    """Memory of an RGB or RGBA image; Pillow stores both in four bytes a pixel."""
    return 4 * image.width * image.height


IMAGES: ByteCache[Image.Image] = ByteCache(128 << 20, image_bytes)
"""The cards and textures of the last pictures."""


def draw_hand(cards: Sequence[Card], look: Look = PAPER_LOOK, seed: int = 0) -> Image.Image:
    """Draw a hand, the first card leftmost.

    Args:
        cards: Three to six cards with suits.
        look: How.
        seed: Where the cards lie, in arrangements that leave it to chance; "row" does not.

    Returns:
        A fresh RGB image of the size of the look; the same arguments give the same pixels.

    Raises:
        SftrlError: if there are too few or too many cards, one has no suit, or the seed is negative.
    """
    if not HAND_SIZES[0] <= len(cards) <= HAND_SIZES[1]:
        raise SftrlError(f"a picture shows {HAND_SIZES[0]} to {HAND_SIZES[1]} cards, found {len(cards)}.")
    if seed < 0:
        raise SftrlError(f"the seed of a picture must be a whole number >= 0, found {seed!r}.")
    table, arrangement, deck = TABLES[look.table], ARRANGEMENTS[look.arrangement], look.deck
    if table.texture is None:
        image = Image.new("RGB", (look.width, look.height), table.color)
    else:
        image = IMAGES.get(table.texture, look.width, look.height).copy()
    ground = table.color if table.texture is None and arrangement.apart else None
    spots = arrangement.arrange(len(cards), look.width, look.height, seed)
    for card, spot in zip(cards, spots, strict=True):
        corner = spot.left, spot.top
        if spot.angle:
            large = IMAGES.get(_for_turning, card, spot.width, spot.height, deck)
            turned = _turned(large, spot.width, spot.height, spot.angle)
            left = spot.left + (spot.width - turned.width) // 2
            image.paste(turned, (left, spot.top + (spot.height - turned.height) // 2), turned)
        elif ground is not None:
            image.paste(IMAGES.get(_on_ground, card, spot.width, spot.height, deck, ground), corner)
        else:
            face = IMAGES.get(draw_card, card, spot.width, spot.height, deck)
            image.paste(face, corner, IMAGES.get(card_shape, card, spot.width, spot.height, deck))
    return image


def _on_ground(card: Card, width: int, height: int, deck: str, ground: Color) -> Image.Image:
    """A card as it looks on a plain table: its rectangle can be pasted as a whole."""
    image = Image.new("RGB", (width, height), ground)
    image.paste(draw_card(card, width, height, deck), (0, 0), card_shape(card, width, height, deck))
    return image


def _finer(width: int) -> int:
    """Factor by which a card to be turned is drawn larger than in the picture."""
    return 2 if width > 128 else 4


def _for_turning(card: Card, width: int, height: int, deck: str) -> Image.Image:
    """A card enlarged and as blurred as one pixel of the picture, with a transparent rim."""
    finer = _finer(width)
    mask = card_shape(card, width * finer, height * finer, deck)
    face = draw_card(card, width, height, deck, enlarged=finer)
    face.putalpha(mask)
    # The transparent rim has the colour of the edge, or the blur would mix another one into it.
    edge = (*edge_color(deck), 0)
    image = Image.new("RGBA", (face.width + 4 * finer, face.height + 4 * finer), edge)
    image.paste(face, (2 * finer, 2 * finer))
    return image.filter(ImageFilter.BoxBlur(finer / 2))


def _turned(large: Image.Image, width: int, height: int, angle: float) -> Image.Image:
    """Turn and shrink an image of `_for_turning` at once.

    The nearest pixel is enough, for it is already the mean of its surroundings; a smooth filter takes ten
    times as long.
    """
    finer = _finer(width)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across = math.ceil(width * abs(cos) + height * abs(sin)) + 2
    down = math.ceil(height * abs(cos) + width * abs(sin)) + 2
    # Pillow's matrix leads from a pixel of the result to one of the source; (x, y) puts centre on centre.
    x = large.width / 2 - finer * (cos * across - sin * down) / 2
    y = large.height / 2 - finer * (sin * across + cos * down) / 2
    matrix = (finer * cos, -finer * sin, x, finer * sin, finer * cos, y)
    return large.transform((across, down), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)
