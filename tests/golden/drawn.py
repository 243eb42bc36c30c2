"""Digests of what is drawn: city styles and names, symbols, letters, hands and panoramas.

Run as a module, it writes them anew. Pictures are those of one version of Pillow.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw

from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.render import DECKS
from sftrl_ext.envs.general_points.render.draw import Look, draw_hand
from sftrl_ext.envs.virl.city import CITY_STYLES
from sftrl_ext.envs.virl.city.build import City
from sftrl_ext.envs.virl.city.names import KINDS, draw_symbol, invent_names
from sftrl_ext.envs.virl.city.paint import Painter

STORED = Path(__file__).parent / "drawn.json"
HANDS = ("AS 10H JD QC", "14S 17H 8D KC", "2S 3H 9D 6C", "4S 5H 7D 16C")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def drawn() -> dict[str, str]:
    """Digest of everything that is compared, by name."""
    names = invent_names(np.random.default_rng(7))
    digests = {"pillow": PIL.__version__, "names": _digest(repr(names).encode())}
    digests |= {f"style {name}": _digest(repr(CITY_STYLES[name]).encode()) for name in CITY_STYLES}
    digests |= {f"symbol {kind}": _digest(_symbol(kind).tobytes()) for kind in KINDS}
    for deck in DECKS:
        for hand in HANDS:
            picture = draw_hand(parse_cards(hand.split()), Look(480, 240, deck=deck))
            digests[f"deck {deck}: {hand}"] = _digest(picture.tobytes())
    for style in ("brick", "night"):
        city = City(style, seed=3, routes=4, streets=3)
        plan = city.plan()
        picture = Painter(plan, (160, 80), city.number).paint(tuple(plan.points[0].tolist()), 30.0)
        digests[f"panorama {style}"] = _digest(picture.tobytes())
    return digests


def _symbol(kind: str) -> Image.Image:
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    draw_symbol(ImageDraw.Draw(image), kind, 3, 5, 55, KINDS[kind].color, (255, 255, 255))
    return image


if __name__ == "__main__":
    STORED.write_text(json.dumps(drawn(), indent=1) + "\n", encoding="utf-8")
