"""Tables: what the cards lie on. A new one: ``TABLES.add("mine", Table((90, 0, 60)))``, in any package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sftrl_ext.envs.general_points.render.shapes import Color
from sftrl_ext.errors import Registry


@dataclass(frozen=True)
class Table:
    """A table top.

    Attributes:
        color: Its colour where it has no texture.
        texture: Draws it at a width and a height; None for one plain colour.
    """

    color: Color
    texture: Callable[[int, int], Image.Image] | None = None


def wood(width: int, height: int) -> Image.Image:
    """Five brown planks with a grain along the width; the same for the same size."""
    rng = np.random.default_rng(5)
    side, planks = 1000, 5
    tone = np.repeat(rng.uniform(0.88, 1.08, planks), side // planks)[:, None]
    knots = Image.fromarray(rng.normal(0, 9, (side, 12)).astype(np.float32))
    grain = np.asarray(knots.resize((side, side), Image.Resampling.BICUBIC))
    pixels = tone[..., None] * (128, 84, 48) + grain[..., None]
    for seam in range(side // planks, side, side // planks):
        pixels[seam - 3 : seam + 3] *= 0.6
    planks_image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return planks_image.resize((width, height), Image.Resampling.BICUBIC)


TABLES: Registry[Table] = Registry("table")
"""Table name to table: "green", the paper's as measured; "blue"; "grey"; "wood", the only one not plain."""

TABLES.add("green", Table((53, 101, 77)))
TABLES.add("blue", Table((28, 58, 128)))
TABLES.add("grey", Table((120, 124, 130)))
TABLES.add("wood", Table((128, 84, 48), wood))
