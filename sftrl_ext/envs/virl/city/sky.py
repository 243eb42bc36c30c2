"""The sky of a city: it looks the same from everywhere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from sftrl_ext.envs.virl.city.styles import CityStyle


def paint_sky(style: CityStyle, width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """Paint the upper half of the sphere, north in the first column.

    Returns:
        An array of shape (width, height // 2, 4), the zenith first.
    """
    half = height // 2
    up = ((0.5 - (np.arange(half) + 0.5) / height) * math.pi)[None, :, None]
    around = ((np.arange(width) + 0.5) / width * 2 * math.pi)[:, None]
    zenith, horizon = (np.array(color, float) for color in style.sky)
    part = np.sin(up) ** 0.6
    pixels = horizon + (zenith - horizon) * part + np.zeros((width, 1, 1))
    glow = np.maximum(0, np.cos(around - math.radians(style.sun)))[..., None] ** 4
    pixels += glow * (1 - part) * 26
    # Clouds lie on a plane at height 1: a ray of elevation e meets it at the distance cot(e). The quantile
    # makes the share of cloudy pixels that of the style; towards the horizon clouds fade out.
    slope = 1 / np.tan(np.maximum(up[..., 0], 0.03))
    clouds = _noise(np.sin(around) * slope, np.cos(around) * slope, seed)
    edge = np.quantile(clouds, 1 - style.cloudy)
    cover = np.clip((clouds - edge) * 4, 0, 1)[..., None] * np.clip(up * 5, 0, 1) * 0.9
    pixels = pixels * (1 - cover) + np.array(style.clouds, float) * cover
    sky = np.zeros((width, half, 4), np.uint8)
    sky[..., :3] = np.clip(pixels, 0, 255).astype(np.uint8)
    return sky


def _noise(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Smooth random numbers over a plane."""
    rng = np.random.default_rng([seed, 31])
    side = 512
    sheet = np.zeros((side, side))
    # Value noise in four octaves. Enlarging the middle one of 3 x 3 copies gives a sheet without seams, so
    # the remainders below may repeat it for ever.
    for cells, weight in ((8, 1.0), (16, 0.6), (32, 0.35), (64, 0.2)):
        coarse = Image.fromarray(np.tile(rng.random((cells, cells)).astype(np.float32), (3, 3)))
        box = cells, cells, 2 * cells, 2 * cells
        sheet += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC, box)) * weight
    x, y = x * 40, y * 40
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = x - left, y - top
    upper, lower = (
        sheet[row % side, left % side] * (1 - across) + sheet[row % side, (left + 1) % side] * across
        for row in (top, top + 1)
    )
    return np.asarray(upper * (1 - down) + lower * down)
