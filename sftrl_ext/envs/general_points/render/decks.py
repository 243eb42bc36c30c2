"""Decks: how each card looks, at any size.

A new deck is one line, here or in any other package::

    DECKS.add("mine", Deck(paper=(255, 255, 255), edge=(90, 90, 90), red=(200, 0, 0), black=(0, 0, 0)))

Where a name of `DECKS` is expected, the path of a folder of card pictures is a deck too
(`sftrl_ext.envs.general_points.render.picture_deck`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath

from PIL import Image

from sftrl_ext.envs.general_points.cards import FACES, LARGE_RANKS, RANKS, SUITS, SUITS_OF, Card
from sftrl_ext.envs.general_points.render.letters import ANGULAR, ROUND, Lettering
from sftrl_ext.envs.general_points.render.picture_deck import picture_deck
from sftrl_ext.envs.general_points.render.royals import draw_emblem, draw_royal
from sftrl_ext.envs.general_points.render.shapes import HEIGHT, WIDTH, Color, Path, Pen, arc
from sftrl_ext.errors import Registry, SftrlError

INDEX_BOX = (8, 8, 72, 153)
"""Box of the upper corner index of every deck, in card units: left, top, right, bottom."""

FINE = 72
"""Cards narrower than this many pixels are drawn without thin lines and without the features of faces."""

_CORNER = 15
_SUPERSAMPLED = 1080
_KNOWN = frozenset(RANKS + LARGE_RANKS)

_LEFT, _CENTRE, _RIGHT = 95, 125, 155
_ROWS_4 = (60, 137, 213, 290)
_ROWS_3 = (60, 175, 290)


def _columns(sides: tuple[int, ...], *centre: float) -> Path:
    """Places of pips: both side columns at the same heights, and the middle column."""
    return tuple((x, y) for x in (_LEFT, _RIGHT) for y in sides) + tuple((_CENTRE, y) for y in centre)


PIPS: dict[str, Path] = {
    "A": _columns((), 175),
    "2": _columns((), 60, 290),
    "3": _columns((), *_ROWS_3),
    "4": _columns((60, 290)),
    "5": _columns((60, 290), 175),
    "6": _columns(_ROWS_3),
    "7": _columns(_ROWS_3, 117),
    "8": _columns(_ROWS_3, 117, 233),
    "9": _columns(_ROWS_4, 175),
    "10": _columns(_ROWS_4, 98, 252),
}
"""Rank to the middles of its suit symbols, in card units; those of the lower half are upside down."""


def pips(pen: Pen, card: Card, deck: Deck, fine: bool) -> None:
    """As many suit symbols as the card counts, pictures for faces, the number itself on large cards."""
    ink = deck.ink(card)
    if card.rank in FACES:
        draw_royal(pen, card.rank, card.suit, ink, deck.field, fine)
    elif card.rank in PIPS:
        size = 40 if card.rank != "A" else 118 if card.suit == "S" else 92
        for x, y in PIPS[card.rank]:
            if y > HEIGHT / 2:
                pen.upside_down().suit(card.suit, WIDTH - x, HEIGHT - y, size, ink)
            else:
                pen.suit(card.suit, x, y, size, ink)
    else:
        deck.lettering.write(pen, card.rank, 125, 175, 88, ink, widest=104)
        for half in (pen, pen.upside_down()):
            half.suit(card.suit, 125, 84, 56, ink)


def emblems(pen: Pen, card: Card, deck: Deck, fine: bool) -> None:
    """One large suit symbol under the number, or under the emblem of a face, between two bars."""
    ink = deck.ink(card)
    if card.rank in FACES:
        draw_emblem(pen, card.rank, 125, 128, 88, ink)
    else:
        deck.lettering.write(pen, card.rank, 125, 128, 84, ink, widest=92)
    pen.suit(card.suit, 125, 224, 76, ink)
    for half in (pen, pen.upside_down()):
        half.box(92, 20, 232, 32, ink)


@dataclass(frozen=True)
class Deck:
    """A style of cards.

    Attributes:
        paper: Colour of the card.
        edge: Colour of the thin line around it.
        red: Ink of hearts and diamonds.
        black: Ink of spades and clubs.
        field: Colour behind the pictures of faces.
        lettering: How ranks are written.
        middle: Draws what is between the corners: `pips` or `emblems`.
    """

    paper: Color
    edge: Color
    red: Color
    black: Color
    field: Color = (255, 246, 216)
    lettering: Lettering = ROUND
    middle: Callable[[Pen, Card, Deck, bool], None] = pips

    def ink(self, card: Card) -> Color:
        """The colour a card's rank and suit are drawn in."""
        return self.red if card.suit in SUITS_OF["red"] else self.black


DECKS: Registry[Deck] = Registry("deck")
"""Deck name to deck: "classic"; "plain", without pips or pictures, in other colours and letters; "night"."""

DECKS.add("classic", Deck(paper=(255, 255, 255), edge=(120, 120, 120), red=(204, 18, 32), black=(16, 16, 20)))
DECKS.add(
    "plain",
    Deck(
        paper=(246, 234, 206),
        edge=(150, 120, 80),
        red=(214, 78, 18),
        black=(24, 52, 120),
        lettering=ANGULAR,
        middle=emblems,
    ),
)
DECKS.add(
    "night",
    Deck(
        paper=(34, 36, 46),
        edge=(150, 150, 165),
        red=(255, 96, 92),
        black=(222, 228, 240),
        field=(66, 70, 98),
    ),
)


def draw_card(card: Card, width: int, height: int, deck: str = "classic", enlarged: int = 1) -> Image.Image:
    """Draw the face of one card, without rounding its corners.

    Args:
        card: A card with a suit.
        width: Width in pixels.
        height: Height in pixels, about 7/5 of the width.
        deck: A name of `DECKS`, or a folder of card pictures.
        enlarged: How many times larger the image is, with the details of a card of that width.

    Returns:
        A fresh RGB image.

    Raises:
        SftrlError: if the card has no suit or is none of the deck, or the deck is unknown.
    """
    if _is_folder(deck):
        return picture_deck(deck).draw(card, width * enlarged, height * enlarged).convert("RGB")
    style = DECKS[deck]
    if card.suit not in SUITS or card.rank not in _KNOWN:
        raise SftrlError(
            f"cannot draw the card {str(card)!r}: a picture needs a rank ({', '.join(RANKS + LARGE_RANKS)}) "
            f"and a suit ({', '.join(SUITS)})."
        )
    factor = _factor(width * enlarged)
    image = Image.new("RGB", (width * enlarged * factor, height * enlarged * factor), style.edge)
    pen, ink, fine = Pen(image), style.ink(card), width >= FINE
    pen.fill(_outline(max(1.6, 0.7 * WIDTH / width)), style.paper)
    style.middle(pen, card, style, fine)
    tall, size = (70, 44) if fine else (84, 52)
    for half in (pen, pen.upside_down()):
        style.lettering.write(half, card.rank, 39, 11 + tall / 2, tall, ink, widest=60)
        half.suit(card.suit, 39, 16 + tall + size / 2, size, ink)
    return image.reduce(factor)


@lru_cache(maxsize=4)
def card_mask(width: int, height: int) -> Image.Image:
    """Part of its rectangle that a card covers: all but the rounded corners, as an image of mode L."""
    factor = _factor(width)
    mask = Image.new("L", (width * factor, height * factor), 0)
    Pen(mask).fill(_outline(0), 255)
    return mask.reduce(factor)


def card_shape(card: Card, width: int, height: int, deck: str) -> Image.Image:
    """Part of its rectangle that a card of a deck covers: of a picture, what is not transparent."""
    if _is_folder(deck):
        return picture_deck(deck).draw(card, width, height).getchannel("A")
    return card_mask(width, height)


def edge_color(deck: str) -> Color:
    """Colour of the edge of a deck's cards."""
    return picture_deck(deck).edge if _is_folder(deck) else DECKS[deck].edge


def check_deck(deck: str) -> str:
    """Check the name of a deck, and make the path of a folder of card pictures absolute.

    Raises:
        SftrlError: if the deck is unknown, or the folder is none of card pictures.
    """
    if _is_folder(deck):
        return str(picture_deck(deck).folder)
    try:
        DECKS[deck]
    except SftrlError as error:
        raise SftrlError(
            f"{error} A folder of card pictures is a deck too; there is none of this name."
        ) from None
    return deck


def check_cards(deck: str, ranks: Iterable[str], suits: Iterable[str]) -> None:
    """Check that a deck shows every card of some ranks and suits; a drawn one shows all.

    Raises:
        SftrlError: naming the cards that a folder of card pictures lacks.
    """
    if _is_folder(deck):
        picture_deck(deck).check(ranks, suits)


def deck_digest(deck: str) -> str | None:
    """Digest of the pictures of a deck; None for a drawn one, which is part of the code."""
    return picture_deck(deck).digest() if _is_folder(deck) else None


def _is_folder(deck: object) -> bool:
    """True if a deck is given by a path."""
    if not isinstance(deck, str) or deck in DECKS:
        return False
    return os.sep in deck or "/" in deck or FilePath(deck).expanduser().is_dir()


def _factor(width: int) -> int:
    """Supersampling factor of a card of a width."""
    return max(2, min(16, round(_SUPERSAMPLED / width)))


def _outline(inset: float) -> Path:
    """The rounded outline of a card, drawn in by ``inset``."""
    r = _CORNER - inset
    return (
        arc(_CORNER, _CORNER, r, r, 180, 270)
        + arc(WIDTH - _CORNER, _CORNER, r, r, 270, 360)
        + arc(WIDTH - _CORNER, HEIGHT - _CORNER, r, r, 0, 90)
        + arc(_CORNER, HEIGHT - _CORNER, r, r, 90, 180)
    )
