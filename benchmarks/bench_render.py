"""Time of drawing a hand: ``python benchmarks/bench_render.py``.

Prints one JSON object with the microseconds of `draw_hand` for each size and look, the floor of that size
measured in the same run (a fresh image of one colour and four pastes of blank cards), and their ratio; exits
with 1 if a bound is missed. Times are of the process, the best of several rounds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from PIL import Image
from timing import best_seconds

from sftrl_ext.envs.general_points.cards import RANKS, SUITS, Card, parse_cards
from sftrl_ext.envs.general_points.render import ARRANGEMENTS, Look, draw_card, draw_hand

SIZES = ((1200, 1200), (336, 336), (224, 224), (224, 84))
HAND = parse_cards(["KS", "10H", "7D", "QC"])
AT_MOST_US = {"1200x1200": 300.0, "1200x1200 rotated": 3000.0, "1200x1200 overlap": 3000.0}


def best_us(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    return round(best_seconds(call, rounds=10, repeat=30) * 1e6, 1)


def floor(width: int, height: int) -> Callable[[], Image.Image]:
    """A picture of as many pixels, without cards."""
    spots = ARRANGEMENTS["row"].arrange(len(HAND), width, height, 0)
    blank = Image.new("RGB", (spots[0].width, spots[0].height), (255, 255, 255))

    def draw() -> Image.Image:
        image = Image.new("RGB", (width, height), (0, 84, 40))
        for spot in spots:
            image.paste(blank, (spot.left, spot.top))
        return image

    return draw


def first_deck_ms(width: int, height: int) -> float:
    """Milliseconds of drawing all 52 cards for the first time."""
    start = time.process_time()
    for suit in SUITS:
        for rank in RANKS:
            draw_card(Card(rank, suit), width, height)
    return round((time.process_time() - start) * 1e3, 1)


def main() -> int:
    """Measure, print, and compare with the bounds."""
    us: dict[str, float] = {}
    floors: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for width, height in SIZES:
        size = f"{width}x{height}"
        floors[size] = best_us(floor(width, height))
        for change in ({}, {"arrangement": "rotated"}, {"arrangement": "overlap"}, {"table": "wood"}):
            look = Look(width, height, **change)
            name = " ".join([size, *change.values()])
            us[name] = best_us(lambda look=look: draw_hand(HAND, look, seed=1))
            ratios[name] = round(us[name] / floors[size], 2)
    report = {
        "us": us,
        "floor_us": floors,
        "over_floor": ratios,
        "first_52_cards_ms": {"270x378": first_deck_ms(270, 378), "51x71": first_deck_ms(51, 71)},
        "at_most": AT_MOST_US,
    }
    print(json.dumps(report, indent=2))
    return int(any(us[name] > limit for name, limit in AT_MOST_US.items()))


if __name__ == "__main__":
    sys.exit(main())
