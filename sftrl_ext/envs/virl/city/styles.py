"""City styles: what a city looks like, and how its streets lie.

A new one: ``CITY_STYLES.add("mine", replace(CITY_STYLES["brick"], sky=...))``, in any package.
"""

from __future__ import annotations

from dataclasses import dataclass

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

CITY_STYLES.add("brick", CityStyle())
CITY_STYLES.add(
    "sandstone",
    CityStyle(
        sky=((70, 130, 196), (240, 222, 184)),
        clouds=(252, 240, 220),
        cloudy=0.1,
        walls=((226, 194, 140), (212, 174, 118), (236, 214, 172), (200, 156, 104), (232, 202, 160)),
        joints="stone",
        trim=(246, 232, 204),
        glass=(92, 74, 58),
        windows="arch",
        roof="flat",
        floors=(2, 4),
        asphalt=(158, 140, 116),
        marking=(240, 234, 220),
        pavement=(212, 190, 154),
        street=8.0,
        walk=2.5,
        block=70.0,
        turn=12.0,
        tree="palm",
        leaves=(88, 130, 66),
        sun=200.0,
        origin=(28.6000, 77.2000),
    ),
)
CITY_STYLES.add(
    "nordic",
    CityStyle(
        sky=((120, 146, 168), (206, 212, 216)),
        clouds=(226, 228, 230),
        cloudy=0.75,
        walls=((178, 44, 40), (232, 184, 60), (58, 92, 132), (236, 234, 226), (72, 122, 92)),
        joints="plank",
        trim=(246, 246, 242),
        glass=(54, 66, 80),
        lit=0.25,
        windows="tall",
        roof="tiles",
        floors=(2, 4),
        asphalt=(112, 114, 118),
        marking=(238, 238, 234),
        pavement=(140, 138, 138),
        street=8.5,
        walk=3.0,
        block=72.0,
        layout="rings",
        turn=10.0,
        tree="cone",
        leaves=(38, 82, 60),
        signs="light",
        sun=180.0,
        origin=(59.9000, 10.7000),
    ),
)
CITY_STYLES.add(
    "glass",
    CityStyle(
        sky=((44, 110, 196), (182, 212, 240)),
        cloudy=0.2,
        walls=((112, 140, 164), (140, 160, 172), (92, 112, 130), (168, 182, 190), (76, 96, 122)),
        joints="panel",
        trim=(208, 216, 222),
        glass=(96, 158, 196),
        windows="band",
        roof="flat",
        floors=(8, 20),
        asphalt=(58, 60, 66),
        marking=(244, 244, 244),
        pavement=(188, 190, 192),
        street=15.0,
        walk=5.0,
        block=98.0,
        turn=-16.0,
        leaves=(84, 150, 74),
        signs="neon",
        sun=300.0,
        origin=(22.2800, 114.1500),
    ),
)
CITY_STYLES.add(
    "pastel",
    CityStyle(
        sky=((66, 168, 226), (214, 240, 248)),
        cloudy=0.3,
        walls=((244, 160, 158), (150, 212, 196), (250, 220, 128), (166, 178, 232), (250, 188, 132)),
        joints="plain",
        trim=(252, 250, 244),
        glass=(70, 110, 128),
        windows="shutter",
        roof="tiles",
        floors=(2, 3),
        asphalt=(128, 126, 132),
        marking=(250, 250, 246),
        pavement=(226, 212, 200),
        street=9.0,
        walk=3.0,
        block=74.0,
        layout="rings",
        turn=33.0,
        tree="palm",
        leaves=(60, 150, 84),
        signs="light",
        sun=30.0,
        origin=(-34.6000, -58.4000),
    ),
)
CITY_STYLES.add(
    "concrete",
    CityStyle(
        sky=((150, 156, 160), (196, 198, 198)),
        clouds=(176, 180, 182),
        cloudy=0.9,
        walls=((150, 150, 146), (132, 134, 132), (168, 166, 158), (118, 122, 124), (158, 150, 138)),
        joints="panel",
        trim=(102, 104, 104),
        glass=(48, 54, 60),
        lit=0.12,
        windows="wide",
        roof="flat",
        floors=(5, 12),
        asphalt=(92, 92, 92),
        marking=(222, 222, 216),
        pavement=(126, 126, 122),
        street=13.0,
        walk=4.0,
        block=92.0,
        turn=5.0,
        tree="none",
        sun=120.0,
        day=0.92,
        origin=(51.5000, -0.1000),
    ),
)
CITY_STYLES.add(
    "night",
    CityStyle(
        sky=((10, 12, 34), (52, 40, 78)),
        clouds=(38, 34, 62),
        cloudy=0.4,
        walls=((70, 64, 92), (84, 66, 84), (58, 66, 96), (92, 78, 88), (64, 58, 74)),
        joints="panel",
        trim=(96, 88, 118),
        glass=(22, 26, 48),
        lit=0.5,
        windows="wide",
        roof="flat",
        floors=(4, 11),
        asphalt=(38, 38, 52),
        marking=(190, 186, 160),
        pavement=(72, 68, 84),
        street=10.0,
        walk=3.5,
        block=76.0,
        turn=-35.0,
        leaves=(30, 58, 54),
        signs="neon",
        sun=90.0,
        day=0.85,
        famous=0.6,
        origin=(35.6500, 139.7000),
    ),
)
CITY_STYLES.add(
    "tropic",
    CityStyle(
        sky=((196, 128, 96), (252, 206, 140)),
        clouds=(250, 170, 130),
        cloudy=0.5,
        walls=((236, 226, 206), (206, 120, 74), (112, 150, 110), (236, 196, 92), (178, 92, 84)),
        joints="plain",
        trim=(122, 78, 52),
        glass=(78, 56, 50),
        lit=0.2,
        windows="shutter",
        roof="tiles",
        floors=(1, 3),
        asphalt=(150, 104, 78),
        marking=(230, 206, 170),
        pavement=(190, 150, 116),
        street=9.5,
        walk=3.5,
        block=78.0,
        turn=20.0,
        tree="palm",
        leaves=(70, 104, 40),
        sun=265.0,
        origin=(6.4500, 3.4000),
    ),
)
CITY_STYLES.add(
    "marble",
    CityStyle(
        sky=((96, 150, 222), (226, 236, 246)),
        cloudy=0.45,
        walls=((238, 234, 226), (224, 220, 214), (244, 240, 228), (214, 208, 200), (232, 222, 206)),
        joints="stone",
        trim=(190, 180, 164),
        glass=(60, 72, 84),
        windows="arch",
        roof="cornice",
        floors=(4, 6),
        asphalt=(120, 118, 124),
        marking=(252, 252, 252),
        pavement=(214, 208, 200),
        street=12.0,
        walk=5.0,
        block=88.0,
        layout="rings",
        turn=0.0,
        tree="cone",
        leaves=(46, 100, 56),
        sun=150.0,
        origin=(45.4600, 9.1800),
    ),
)
CITY_STYLES.add(
    "snow",
    CityStyle(
        sky=((176, 190, 204), (232, 236, 240)),
        clouds=(240, 242, 244),
        cloudy=0.8,
        walls=((96, 72, 58), (120, 92, 72), (84, 88, 96), (136, 70, 56), (148, 128, 104)),
        joints="plank",
        trim=(244, 246, 250),
        glass=(78, 88, 104),
        lit=0.35,
        windows="shutter",
        roof="cornice",
        floors=(2, 4),
        asphalt=(206, 212, 220),
        marking=(168, 172, 180),
        pavement=(238, 242, 246),
        street=9.0,
        walk=3.5,
        block=76.0,
        turn=-8.0,
        tree="cone",
        leaves=(170, 192, 190),
        sun=220.0,
        origin=(46.8000, -71.2000),
    ),
)
CITY_STYLES.add(
    "dusk",
    CityStyle(
        sky=((62, 62, 118), (214, 132, 130)),
        clouds=(150, 96, 122),
        cloudy=0.45,
        walls=((126, 104, 124), (146, 112, 112), (104, 98, 128), (158, 128, 120), (116, 88, 104)),
        joints="stone",
        trim=(184, 158, 158),
        glass=(52, 48, 84),
        lit=0.4,
        windows="tall",
        roof="cornice",
        floors=(3, 6),
        asphalt=(70, 62, 82),
        marking=(214, 190, 170),
        pavement=(128, 112, 128),
        street=10.0,
        walk=3.0,
        block=84.0,
        layout="rings",
        turn=-20.0,
        leaves=(66, 80, 72),
        signs="light",
        sun=280.0,
        day=0.9,
        famous=0.8,
        origin=(48.8500, 2.3500),
    ),
)
CITY_STYLES.add(
    "garden",
    CityStyle(
        sky=((116, 176, 190), (224, 236, 206)),
        clouds=(238, 244, 232),
        cloudy=0.55,
        walls=((164, 176, 136), (204, 196, 158), (132, 152, 126), (222, 214, 190), (176, 152, 118)),
        joints="plank",
        trim=(88, 96, 70),
        glass=(84, 106, 92),
        windows="wide",
        roof="flat",
        floors=(1, 3),
        asphalt=(104, 112, 92),
        marking=(236, 232, 196),
        pavement=(112, 148, 84),
        street=9.0,
        walk=5.0,
        block=80.0,
        turn=40.0,
        leaves=(50, 132, 56),
        sun=60.0,
        origin=(-37.8000, 144.9600),
    ),
)
