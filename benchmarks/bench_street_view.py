"""Time of street views: ``python benchmarks/bench_street_view.py``.

Prints one JSON object with the milliseconds of slicing one view, of a grid of four from a panorama in memory
and from its file, and of painting a panorama of the synthetic city; the floors measured in the same run
(resizing an image to the same pixels, decoding the file alone), and their ratios; exits with 1 if a bound is
missed. Times are of the process, the best of several rounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from timing import best_seconds

from sftrl_ext.envs.virl.city import City
from sftrl_ext.envs.virl.city.paint import Painter
from sftrl_ext.envs.virl.street_view import Panorama, StreetViews

WIDTH = 2048
AT_MOST_MS = {"view 640": 5.0, "grid 1200": 25.0, "grid 224": 3.0, "paint 1700x850": 300.0}


def best_ms(call: Callable[[], object], rounds: int = 12) -> float:
    """Milliseconds of one call."""
    return round(best_seconds(call, rounds) * 1e3, 2)


def main() -> int:
    """Measure, print, and compare with the bounds."""
    city = City("brick", seed=0, routes=50)
    plan = city.plan()
    x, y = plan.points[20].tolist()
    ms: dict[str, float] = {}
    for width in (512, 1700):
        painter = Painter(plan, (width, width // 2), city.number)
        ms[f"paint {width}x{width // 2}"] = best_ms(lambda painter=painter: painter.paint((x, y), 30.0), 6)
    picture = Painter(plan, (WIDTH, WIDTH // 2), city.number).paint((x, y), 30.0)
    panorama = Panorama.pack(picture, 30.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "a.jpg"
        picture.save(file, quality=90)
        (folder / "a.metadata.json").write_text('{"rotation": 30.0}')
        views = StreetViews(folder)
        for size in (640, 224):
            ms[f"view {size}"] = best_ms(lambda size=size: panorama.view(77.7, size=size))
        ms["view 640, pitch 10"] = best_ms(lambda: panorama.view(77.7, pitch=10.0))
        for size in (1200, 224):
            ms[f"grid {size}"] = best_ms(lambda size=size: views.grid("a", 77.7, size=size))
            ms[f"grid {size} from file"] = best_ms(
                lambda size=size: StreetViews(folder).grid("a", 77.7, size=size)
            )
        floors = {
            "view 640": best_ms(lambda: picture.resize((640, 640), Image.Resampling.BILINEAR)),
            "grid 1200": best_ms(lambda: picture.resize((1200, 1200), Image.Resampling.BILINEAR)),
            "grid 1200 from file": best_ms(lambda: Image.open(file).load()),
        }
    report = {
        "ms": ms,
        "floor_ms": floors,
        "over_floor": {name: round(ms[name] / floor, 2) for name, floor in floors.items()},
        "at_most": AT_MOST_MS,
    }
    print(json.dumps(report, indent=2))
    return int(any(ms[name] > limit for name, limit in AT_MOST_MS.items()))


if __name__ == "__main__":
    sys.exit(main())
