"""What an episode showed: its pictures drawn again from the stored facts, and its cards in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sftrl_ext.envs  # noqa: F401  (registers the tasks)
from sftrl_ext.envs.base import make_episode
from sftrl_ext.envs.general_points.cards import Card, parse_cards
from sftrl_ext.errors import SftrlError

SIDE = 420
"""Longest side of a picture in a report, in pixels."""

_RANKS = {"A": "ace", "J": "jack", "Q": "queen", "K": "king"}
_SUITS = {"S": "spades", "H": "hearts", "D": "diamonds", "C": "clubs"}


def has_picture(facts: Mapping[str, Any]) -> bool:
    """Whether an episode shows pictures, told by its facts."""
    return facts.get("modality") == "image"


def in_words(facts: Mapping[str, Any]) -> str:
    """What an episode shows at its start, for people; "" if it has no picture.

    Example: ``king of spades, 5 of clubs, ... (classic deck, row, green table)``.
    """
    if has_picture(facts) and facts.get("task") == "virl":
        return "four views from the start of the route"
    if not has_picture(facts) or not isinstance(facts.get("cards"), list):
        return ""
    try:
        cards = parse_cards(facts["cards"])
    except SftrlError:
        return ""
    look = facts.get("look")
    look = look if isinstance(look, Mapping) else {}
    told = [f"{look['deck']} deck"] if "deck" in look else []
    told += [str(look["arrangement"])] if "arrangement" in look else []
    told += [f"{look['table']} table"] if "table" in look else []
    return ", ".join(_card(card) for card in cards) + (f" ({', '.join(told)})" if told else "")


def _card(card: Card) -> str:
    return f"{_RANKS.get(card.rank, card.rank)}" + (f" of {_SUITS[card.suit]}" if card.suit else "")


def pngs(facts: Mapping[str, Any], side: int | None = SIDE) -> list[bytes]:
    """The pictures of an episode as PNG files, the same bytes for the same facts.

    Args:
        facts: The stored facts.
        side: Longest side in pixels that larger pictures are shrunk to; None leaves them as they were seen.

    Returns:
        None at all for a text episode, and where the facts do not suffice to draw one.
    """
    if not has_picture(facts):
        return []
    try:
        images = make_episode(facts).images()
    except (SftrlError, OSError):
        return []
    files = []
    for image in images:
        small = image.copy()
        if side is not None:
            small.thumbnail((side, side))
        out = io.BytesIO()
        small.save(out, format="PNG", optimize=True)
        files.append(out.getvalue())
    return files


def data_uri(png: bytes) -> str:
    """A PNG file as the address of an image that a page carries in itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def write_pictures(facts: Mapping[str, Any], folder: Path, stem: str, side: int | None = SIDE) -> list[Path]:
    """Write the pictures of an episode as ``<stem>.png``, ``<stem>-2.png``, ...; their paths."""
    paths = []
    for number, png in enumerate(pngs(facts, side), start=1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        paths.append(path)
    return paths
