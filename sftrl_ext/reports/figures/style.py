"""One look for all figures: markers and lines per learning rate.

Colours of arms are in `sftrl_ext.reports.analysis.arms`; most are from the palette of Okabe and Ito, which
colour-blind readers can distinguish. Figures are made without pyplot, so no global state changes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftrl_ext.files import write_text

START_COLOUR = "#555555"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", "--", ":", "-.")
INK = "#222222"
FAINT = "#8A8A8A"

WIDTH = 9.2
"""Width of a full figure in inches: text of 9 points is about 12 pixels high in a README column."""

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#B0B0B0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
    "text.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.dpi": 180,
    "svg.hashsalt": "sftrl",
    "svg.fonttype": "path",
    "hatch.linewidth": 0.9,
}


def look() -> Any:
    """A context in which figures are drawn and saved."""
    return rc_context(_RC)


def text_renderer(figure: Figure) -> Any:
    """Renderer that measures the texts of a figure before it is saved."""
    return FigureCanvasAgg(figure).get_renderer()


def lr_marker(lr: float | None, rates: Sequence[float | None]) -> str:
    """Marker of a learning rate among all of the run's."""
    return MARKERS[rates.index(lr) % len(MARKERS)] if lr in rates else MARKERS[0]


def lr_line(lr: float | None, rates: Sequence[float | None]) -> str:
    """Line style of a learning rate among those of its arm."""
    return LINES[rates.index(lr) % len(LINES)] if lr in rates else LINES[0]


def draw_guides(axes: Axes, x: float, y: float) -> None:
    """Draw the dashed lines through a start, behind all points."""
    for draw, value in ((axes.axhline, y), (axes.axvline, x)):
        draw(value, color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)


def mark_figure(figure: Figure, text: str) -> None:
    """Write a remark into the lower right corner of a figure, in room of its own."""
    figure.legend(handles=[], title=text, loc="outside lower right", frameon=False, title_fontsize=8)


def percent_axis(axes: Axes, which: str = "y") -> None:
    """Write an axis' ticks as percent; values are 0 to 100."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _: f"{value:g} %")


def put_legend(figure: Figure, handles: Sequence[Any], rows: int, **options: Any) -> None:
    """Put a legend above all panels, in one row if that fits.

    Args:
        figure: The figure.
        handles: Its entries, those of an arm one after the other.
        rows: Rows to break it into if one is too long: as many as an arm has entries, so that each arm gets a
            column.
        options: Further options of the legend.
    """
    entries = list(handles)
    columns = len(entries)
    if sum(len(entry.get_label()) + 8 for entry in entries) > 105 and rows > 1:
        entries += [Line2D([], [], color="none", label=" ")] * (-len(entries) % rows)
        columns = len(entries) // rows
    elif sum(len(entry.get_label()) + 8 for entry in entries) > 130:
        columns = -(-columns // 2)
    figure.legend(handles=entries, loc="outside upper center", ncols=columns, **options)


_GENERATED_ID = re.compile(r'(?P<before>id="|href="#|url\(#)(?P<id>[a-z][0-9a-f]{10})\b')


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, the same bytes for the same numbers.

    Returns:
        Paths of the PNG and of the SVG.
    """
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for both files
    write_figure(figure, png)
    write_figure(figure, svg)
    return png, svg


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as one file, of the kind its suffix says: ``.png``, ``.svg`` or ``.jpg``."""
    if path.suffix == ".svg":
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        write_text(path, _number_ids(drawn.getvalue()))
    elif path.suffix == ".jpg":
        figure.savefig(path, dpi=150, pil_kwargs={"quality": 85})
    else:
        figure.savefig(path, metadata={"Software": None})


def _number_ids(svg: str) -> str:
    """Name the generated ids by their order: matplotlib makes those of clip paths from memory addresses."""
    numbers: dict[str, int] = {}

    def rename(match: re.Match[str]) -> str:
        number = numbers.setdefault(match.group("id"), len(numbers) + 1)
        return f"{match.group('before')}{match.group('id')[0]}{number}"

    return _GENERATED_ID.sub(rename, svg)
