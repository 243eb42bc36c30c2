"""Figures for pages with a dark background, from those for light ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

_GREY = 0.03
"""Largest difference of the channels of a colour that is a grey."""
_FROM_WHITE, _FROM_BLACK = 0.06, 0.92
"""Brightness that white and black become."""

_PROPERTIES: dict[type, tuple[str, ...]] = {
    Text: ("color",),
    Line2D: ("color", "markerfacecolor", "markeredgecolor"),
    Patch: ("facecolor", "edgecolor"),
    Collection: ("facecolor", "edgecolor"),
}


def darken(figure: Figure) -> None:
    """Turn the greys of a figure, white and black among them, into their counterparts on a dark background.

    Colours of arms stay as they are.

    Args:
        figure: It is changed, and must have been laid out.
    """
    boxes = [text.get_bbox_patch() for text in figure.findobj(Text)]  # not among what findobj finds
    for artist in [*figure.findobj(), *filter(None, boxes)]:
        for kind, names in _PROPERTIES.items():
            if isinstance(artist, kind):
                # All are read before any is set: a marker without a colour of its own has that of its line.
                colours = {name: _darkened(getattr(artist, f"get_{name}")()) for name in names}
                artist.set(**colours)


def _darkened(colour: Any) -> Any:
    """The counterpart of a colour, or of an array of them."""
    if isinstance(colour, str) and colour in ("auto", "none", "inherit"):
        return colour
    several = isinstance(colour, np.ndarray) and colour.ndim == 2
    rgba = to_rgba_array(colour) if several else np.array([to_rgba(colour)])
    grey = np.ptp(rgba[:, :3], axis=1) <= _GREY if len(rgba) else np.zeros(0, bool)
    rgba[grey, :3] = _FROM_BLACK - (_FROM_BLACK - _FROM_WHITE) * rgba[grey, :3]
    return rgba if several else tuple(rgba[0])
