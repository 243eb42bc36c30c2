"""Decks of card pictures: a folder with one PNG file for each card, named after it.

A file's name is rank and suit in either order, in letters (``KS.png``, ``10H.png``, ``S_K.png``) or in words
(``king_of_spades.png``, ``2_of_clubs.png``). Files with other names (backs, jokers) are ignored. All pictures
must have one size, in about the shape of a card; a transparent rim shows the table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from sftrl_ext.envs.general_points.cards import LARGE_RANKS, RANKS, Card
from sftrl_ext.envs.general_points.render.shapes import HEIGHT, WIDTH, Color
from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.errors import SftrlError

SHAPES = (0.6, 0.8)
"""Least and greatest width of a picture over its height; a card is drawn at 5/7."""

NAMES = "a name such as KS.png, 10H.png or king_of_spades.png"

_RANK_WORDS = {"ace": "A", "jack": "J", "queen": "Q", "king": "K"} | {
    rank.lower(): rank for rank in RANKS + LARGE_RANKS
}
_SUIT_WORDS = {
    word: letter
    for letter, name in (("S", "spade"), ("H", "heart"), ("D", "diamond"), ("C", "club"))
    for word in (letter.lower(), name, f"{name}s")
}
_RANK, _SUIT = (
    "|".join(sorted(spellings, key=len, reverse=True)) for spellings in (_RANK_WORDS, _SUIT_WORDS)
)
_NAME = re.compile(
    rf"(?:(?P<r1>{_RANK})(?:[ _-]*of)?[ _-]*(?P<s1>{_SUIT})|(?P<s2>{_SUIT})[ _-]*(?P<r2>{_RANK}))"
)


@dataclass(frozen=True)
class PictureDeck:
    """The card pictures of one folder.

    Attributes:
        folder: The folder.
        files: Card, as in ``KS``, to its file.
        edge: Colour at the upper edge of a card.
    """

    folder: Path
    files: dict[str, Path]
    edge: Color

    def check(self, ranks: Iterable[str], suits: Iterable[str]) -> None:
        """Check that every card of some ranks and suits has a picture.

        Raises:
            SftrlError: naming the cards that have none.
        """
        letters = list(suits)
        missing = [rank + suit for rank in ranks for suit in letters if rank + suit not in self.files]
        if missing:
            shown = ", ".join(missing[:12]) + (", .." if len(missing) > 12 else "")
            raise SftrlError(
                f"{self.folder}: no picture of the cards {shown}; found {len(self.files)}. Expected a PNG "
                f"file for each, with {NAMES}."
            )

    def draw(self, card: Card, width: int, height: int) -> Image.Image:
        """The picture of a card at a size, as RGBA.

        Raises:
            SftrlError: if there is none, or it cannot be read.
        """
        self.check([card.rank], [card.suit])
        image = _open(self.files[str(card)])
        return image.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)

    def digest(self) -> str:
        """Digest of the contents of all pictures, whatever folder they lie in."""
        total = hashlib.sha256()
        for name, path in sorted(self.files.items()):
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return total.hexdigest()


def picture_deck(folder: str | Path) -> PictureDeck:
    """Read the names and sizes of the card pictures in a folder.

    Raises:
        SftrlError: if there is no such folder, no card in it, a card twice, or a picture of another size or
            shape.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise SftrlError(f"{path}: no such folder of card pictures; expected PNG files with {NAMES}.")
    return _read(path, path.stat().st_mtime_ns)


def card_of(name: str) -> str | None:
    """The card that a file is named after, as in ``KS``; None for any other name."""
    match = _NAME.fullmatch(name.lower())
    if match is None:
        return None
    return _RANK_WORDS[match["r1"] or match["r2"]] + _SUIT_WORDS[match["s1"] or match["s2"]]


@lru_cache(maxsize=8)
def _read(folder: Path, changed: int) -> PictureDeck:
    # ``changed`` is read by the cache alone: a folder that has changed is read again.
    files: dict[str, Path] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for path in sorted(folder.iterdir()):
        card = card_of(path.stem) if path.suffix.lower() == ".png" else None
        if card is None:
            continue
        if card in files:
            raise SftrlError(f"{folder}: {files[card].name} and {path.name} are both the card {card}.")
        files[card] = path
        sizes[path] = _open(path).size
    if not files:
        raise SftrlError(f"{folder}: no picture of a card; expected PNG files with {NAMES}.")
    first, (width, height) = next(iter(sizes.items()))
    for path, size in sizes.items():
        if size != (width, height):
            raise SftrlError(
                f"{path}: {size[0]}x{size[1]} pixels; expected {width}x{height}, as {first.name} has: all "
                "cards of a deck have one size."
            )
    if not SHAPES[0] <= width / height <= SHAPES[1]:
        raise SftrlError(
            f"{first}: {width}x{height} pixels, a width of {width / height:.2f} heights; expected "
            f"{SHAPES[0]} to {SHAPES[1]}, because a card is drawn at {WIDTH}x{HEIGHT}."
        )
    red, green, blue = _open(first).convert("RGB").getpixel((width // 2, 0))  # type: ignore[misc]
    return PictureDeck(folder, files, (int(red), int(green), int(blue)))


def _open(path: Path) -> Image.Image:
    with picture_errors(path, "a PNG file"), Image.open(path) as image:
        image.load()
        return image
