"""A sheet that shows every style of city.

Write it with ``python -m tests.envs.virl.city_sheet docs/figures``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from sftrl_ext.envs.virl.city.build import City
from sftrl_ext.envs.virl.city.paint import Painter
from sftrl_ext.envs.virl.city.styles import CITY_STYLES
from sftrl_ext.envs.virl.city.walks import geocodes, make_routes
from sftrl_ext.envs.virl.routes import Milestone
from sftrl_ext.envs.virl.street_view import Panorama

_MARGIN = 6
_ROTATION = 120.0


def views_sheet(side: int = 200, width: int = 1400) -> Image.Image:
    """For each style what a traveller sees at an intersection with a landmark; above them one panorama.

    Args:
        side: Side of a grid of views in pixels.
        width: Width of the panoramas that they are cut from.
    """
    across = 3
    wide = across * (side + _MARGIN) - _MARGIN
    top = wide // 3
    sheet = Image.new("RGB", (wide, top + -(-len(CITY_STYLES) // across) * (side + _MARGIN)), (255, 255, 255))
    for place, style in enumerate(CITY_STYLES):
        city = City(style, seed=3, routes=10)
        plan = city.plan()
        stops = [stop for route in make_routes(plan, 10, city.number) for stop in route.milestones[:-1]]
        stop = _best(stops)
        x, y = plan.points[geocodes(plan).index(stop.geocode)].tolist()
        picture = Painter(plan, (width, width // 2), city.number).paint((x, y), _ROTATION)
        if place == 0:
            band = picture.crop((0, picture.height // 5, width, picture.height // 5 + width // 3))
            sheet.paste(band.resize((wide, top - _MARGIN)), (0, 0))
        corner = place % across * (side + _MARGIN), top + place // across * (side + _MARGIN)
        sheet.paste(Panorama.pack(picture, _ROTATION).grid(stop.heading_next, size=side), corner)
    return sheet


def _best(stops: list[Milestone]) -> Milestone:
    """The first with a landmark at the traveller's right, else the first."""
    return next((stop for stop in stops if stop.landmark and stop.landmark.endswith("right front")), stops[0])


def write_sheet(folder: Path) -> Path:
    """Write the sheet as a PNG file of at most 128 colours, chosen so that a small picture keeps its own."""
    path = folder / "virl-views.png"
    colours = Image.Quantize.FASTOCTREE
    views_sheet().quantize(128, colours, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


if __name__ == "__main__":
    write_sheet(Path(sys.argv[1]))
