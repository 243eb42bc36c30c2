"""Cities that are made up, so that everything runs without the authors' pictures.

A city has streets, houses, landmarks with signs, panoramas at every few steps and routes, all from a seed, in
the authors' formats. Reading order: `styles`, `names`, `streets`, `plan`, `textures`, `sky`, `ground`,
`paint`, `walks`, `build`.
"""

from __future__ import annotations

from sftrl_ext.envs.virl.city.build import City, build_city
from sftrl_ext.envs.virl.city.styles import CITY_STYLES, CityStyle

__all__ = ["CITY_STYLES", "City", "CityStyle", "build_city"]
