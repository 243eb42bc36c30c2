"""City styles: look and layout of a made-up city. The ones that ship are in ``styles.yaml``.

Another one: ``CITY_STYLES.add("mine", replace(CITY_STYLES["brick"], sky=...))``, in any package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sftrl_ext.errors import Registry

Color = tuple[int, int, int]


@dataclass(frozen=True)
class CityStyle:
    """The look and the layout of a city. Lengths are metres, angles degrees.

    Attributes:
        sky: Colours of the zenith and of the horizon.
        clouds: Colour of the clouds.
        cloudy: Share of the sky that they cover.
        walls: Colours of the facades.
        joints: Pattern of the walls: "brick", "stone", "plank", "panel" or "plain".
        trim: Colour of frames and cornices.
        glass: Colour of the windows.
        lit: Share of the windows that are lit.
        windows: Shape of the windows: "tall", "arch", "wide", "band" or "shutter".
        roof: What ends a facade: "cornice", "tiles" or "flat".
        floors: Least and greatest number of floors.
        asphalt: Colour of the road.
        marking: Colour of the lines on the road.
        pavement: Colour of the pavement.
        street: Width of the road between the curbs.
        walk: Width of the pavement.
        block: Mean distance between intersections.
        layout: "grid" or "rings".
        turn: How far the layout is turned, clockwise.
        tree: "round", "cone", "palm" or "none".
        leaves: Colour of the trees.
        signs: "board": white on the colour of the kind of place; "light": that colour on white; "neon": a
            bright form of that colour on black.
        sun: Heading of the sun.
        day: Brightness of the streets and facades.
        famous: Brightness of the facades of landmarks, besides.
        origin: Latitude and longitude of the city's south-west corner.
    """

    sky: tuple[Color, Color] = ((88, 142, 208), (204, 222, 236))
    clouds: Color = (250, 250, 250)
    cloudy: float = 0.35
    walls: tuple[Color, ...] = ((150, 76, 60), (128, 62, 50), (172, 104, 80), (112, 78, 66), (184, 148, 118))
    joints: str = "brick"
    trim: Color = (222, 212, 194)
    glass: Color = (66, 84, 104)
    lit: float = 0.06
    windows: str = "tall"
    roof: str = "cornice"
    floors: tuple[int, int] = (3, 7)
    asphalt: Color = (74, 76, 80)
    marking: Color = (236, 206, 92)
    pavement: Color = (164, 160, 154)
    street: float = 11.0
    walk: float = 3.5
    block: float = 82.0
    layout: str = "grid"
    turn: float = 29.0
    tree: str = "round"
    leaves: Color = (74, 118, 54)
    signs: str = "board"
    sun: float = 160.0
    day: float = 1.0
    famous: float = 1.0
    origin: tuple[float, float] = (40.7000, -73.9900)


CITY_STYLES: Registry[CityStyle] = Registry("city style")
"""Style name to style: twelve cities that do not look alike."""


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


for _name, _values in yaml.safe_load(Path(__file__).with_name("styles.yaml").read_text("utf-8")).items():
    CITY_STYLES.add(_name, CityStyle(**{key: _as_tuples(value) for key, value in _values.items()}))
