"""A route on a map: its points with their headings, its landmarks, and how an episode walked it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from sftrl_ext.reports.episodes.label_placer import Label, place_labels
from sftrl_ext.reports.episodes.walks import (
    AHEAD,
    CUT,
    FAILED,
    FIRST,
    LATER,
    NOT_STORED,
    Visit,
    Walk,
    short,
)
from sftrl_ext.reports.figures.style import FAINT, INK

COLOURS = {FIRST: "#009E73", LATER: "#E69F00", FAILED: "#C1121F", CUT: "#7A3B8F", AHEAD: "#FFFFFF"}
"""Colour of a point by what became of it."""

TEXT_COLOURS = {**COLOURS, FIRST: "#00805E", LATER: "#A86A00", AHEAD: FAINT}
"""The same, dark enough for words."""

MARKS = {FIRST: "o", LATER: "D", FAILED: "s", CUT: "p", AHEAD: "o"}
"""Marker of a point: what the colours say is told by shape too."""

_STREET = "#D9D9D4"
_WALKED = "#6F8FA8"
_HALO = [withStroke(linewidth=2.4, foreground="white")]
_LABEL: dict[str, Any] = {"fontsize": 7.5, "color": INK, "path_effects": _HALO, "zorder": 8}


def draw_map(axes: Axes, walk: Walk, *, legend: bool = True) -> None:
    """Draw an episode's walk.

    Every point of the rail is a marker with its number and an arrow where the traveller looks; its ``gid`` is
    ``point-<number>``. Where the episode failed, arrows show what was answered and what was right.

    Args:
        axes: An axes whose place in its figure is final.
        walk: The episode.
        legend: True to explain the markers below.
    """
    places = np.array([visit.point.position for visit in walk.visits])
    scale = _fit(axes, places)  # metres per point of the figure
    axes.set_axis_off()
    axes.plot(*places.T, color=_STREET, lw=9, solid_capstyle="round", solid_joinstyle="round", zorder=1)
    axes.plot(*places.T, color="white", lw=0.8, dashes=(6, 5), zorder=1.1)
    walked = places[: len(walk.reached)]
    axes.plot(*walked.T, color=_WALKED, lw=2.2, solid_capstyle="round", zorder=2, gid="walked")
    steps = np.hypot(*np.diff(places, axis=0).T) / scale if len(places) > 1 else np.array([14.0])
    # Markers as large as a short step between points, in points of the figure, so that few overlap.
    size = float(np.clip(np.percentile(steps, 20) * 0.95, 7.0, 11.5))
    tips = [
        _draw_point(axes, visit, point, size, scale) for visit, point in zip(walk.visits, places, strict=True)
    ]
    ended, off = _ended(axes, walk, places, size, scale)
    corner = _furniture(axes, scale)
    # Points along the lines, about 6 points of the figure apart, for labels to avoid.
    between = [
        a + (b - a) * part
        for a, b in zip(places[:-1], places[1:], strict=True)
        for part in np.linspace(0, 1, max(2, int(np.hypot(*(b - a)) / scale / 6)))
    ]
    marks = [_box(axes, point, scale * (size / 2 + 2)) for point in places]
    place_labels(
        axes,
        [*ended, *_labels(walk, places)],
        [(float(x), float(y)) for x, y in [*places, *between, *tips]],
        keep_off=[corner, *marks, *off],
    )
    if legend:
        _legend(axes, walk)


def _fit(axes: Axes, places: np.ndarray) -> float:
    """Set limits with one scale in both directions and room for labels; metres per point."""
    figure = axes.figure
    box = axes.get_position()
    width = box.width * figure.get_figwidth() * 72  # type: ignore[union-attr]
    height = box.height * figure.get_figheight() * 72  # type: ignore[union-attr]
    low, high = places.min(axis=0), places.max(axis=0)
    spread = np.maximum(high - low, 20.0)
    # Labels get 65 points of the figure at each side, and 48 above and below.
    scale = float(max(spread[0] / (width - 130), spread[1] / (height - 96)))
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - scale * width / 2, middle[0] + scale * width / 2)
    axes.set_ylim(middle[1] - scale * height / 2, middle[1] + scale * height / 2)
    return scale


def _box(axes: Axes, point: np.ndarray, half: float) -> Bbox:
    """A square around a place, in pixels."""
    return Bbox(axes.transData.transform([point - half, point + half]))


def _ahead(heading: float, length: float) -> np.ndarray:
    return length * np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])


def _draw_point(axes: Axes, visit: Visit, point: np.ndarray, size: float, scale: float) -> np.ndarray:
    """Draw a point; the tip of its arrow."""
    colour = COLOURS[visit.state]
    reached = visit.state != AHEAD
    big = size + (0.0 if visit.point.straight else 2.5)
    tip = point + _ahead(visit.point.heading, scale * (big / 2 + 7.5))
    axes.annotate(
        "",
        tip,
        xytext=tuple(point),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.32",
            "color": INK if reached else FAINT,
            "lw": 1.0,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=4,
        gid=f"heading-{visit.number}",
    )
    axes.plot(
        *point, marker=MARKS[visit.state], ms=big + (1.0 if visit.state == FAILED else 0.0), mfc=colour,
        mec="white" if reached else FAINT, mew=1.0, ls="none", zorder=6 if visit.state == FAILED else 5,
        gid=f"point-{visit.number}",
    )  # fmt: skip
    axes.text(
        float(point[0]), float(point[1]), str(visit.number), fontsize=0.5 * size + 0.7, ha="center",
        va="center_baseline", zorder=7, color="white" if reached else "#555555", fontweight="bold",
        gid=f"number-{visit.number}",
    )  # fmt: skip
    return tip


def _ended(
    axes: Axes, walk: Walk, places: np.ndarray, size: float, scale: float
) -> tuple[list[Label], list[Bbox]]:
    """Ring and arrows where the episode ended; the label that says so, and what labels keep off."""
    if not walk.reached:
        return [], []
    last = walk.reached[-1]
    point = places[len(walk.reached) - 1]
    state = FIRST if walk.solved else last.state
    colour = COLOURS[state]
    axes.plot(
        *point, marker="o", ms=size + 11, mfc="none", mec=colour, mew=2.0, ls="none", zorder=5.5, gid="end"
    )
    style = {**_LABEL, "fontsize": 8, "fontweight": "bold", "color": TEXT_COLOURS[state], "zorder": 9}
    at = (float(point[0]), float(point[1]))
    off = [_box(axes, point, scale * (size / 2 + 8))]
    if walk.solved:
        return [Label("arrived", at, None, style, "ended")], off
    answered = [walk.action(answer) for answer in last.answers if answer.content != NOT_STORED]
    for action, way in ((answered[-1] if answered else None, "wrong-way"), (last.point.action, "right-way")):
        heading = walk.view.action_heading(action, last.point.heading)
        if heading is not None:
            off += _draw_way(axes, places, point, heading, size, scale, way)
    text = f"{'ended' if last.state == FAILED else 'cut off'} at {last.number}"
    if answered:
        text += f"\nanswered: {short(answered[-1] or 'no action')[:24]}\nright: {short(last.point.action)}"
    return [Label(text, at, None, style, "ended")], off


def _draw_way(
    axes: Axes, places: np.ndarray, point: np.ndarray, heading: float, size: float, scale: float, way: str
) -> list[Bbox]:
    """An arrow from where the episode ended, beside points it would hide; the boxes it takes, in pixels."""
    tip = point + _ahead(heading, scale * 36)
    # Other points in the frame of the arrow: ahead of its foot and to its right, in points of the figure.
    along = (places - point) @ _ahead(heading, 1 / scale)
    aside = (places - point) @ _ahead(heading + 90, 1 / scale)
    hidden = (along > 4) & (along < 42) & (abs(aside) < 10)
    beside = _ahead(heading + 90, scale * (size / 2 + 7)) if hidden.any() else np.zeros(2)
    right = way == "right-way"
    axes.annotate(
        "",
        tuple(tip + beside),
        xytext=tuple(point + beside + _ahead(heading, scale * (size / 2 + 6))),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.35,head_length=0.5",
            "color": COLOURS[FIRST if right else FAILED],
            "lw": 2.0,
            "ls": "--" if right else "-",
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=8,
        gid=way,
    )
    return [_box(axes, point + beside + _ahead(heading, scale * far), scale * 5) for far in (20, 27, 34)]


def _labels(walk: Walk, places: np.ndarray) -> list[Label]:
    """The landmarks, each on the side where it is, and the two ends of the route."""
    labels = []
    for visit, (x, y) in zip(walk.visits, places.tolist(), strict=True):
        landmark, side = visit.point.landmark, visit.point.landmark_side
        if landmark:
            toward = None if side is None else (visit.point.heading + side) % 360
            labels.append(Label(landmark, (x, y), toward, _LABEL, f"landmark-{visit.number}"))
    ends = [(places[0], "start")]
    if not walk.solved:
        ends.append((places[-1], "destination"))
    style = {**_LABEL, "color": "#555555", "style": "italic"}
    return [*labels, *(Label(word, (float(x), float(y)), None, style, word) for (x, y), word in ends)]


def _furniture(axes: Axes, scale: float) -> Bbox:
    """Scale bar and north arrow at the lower left; the box they take, in pixels."""
    left, low = axes.get_xlim()[0], axes.get_ylim()[0]
    lengths = [base * 10**power for power in range(5) for base in (1, 2, 5)]
    length = max((n for n in lengths if n / scale <= 90), default=1)
    x, y = left + 10 * scale, low + 10 * scale
    axes.plot([x, x + length], [y, y], color=INK, lw=2.0, solid_capstyle="butt", zorder=8, gid="scale-bar")
    axes.text(x + length / 2, y + 4 * scale, f"{length} m", ha="center", va="bottom", fontsize=7.5, zorder=8)
    x, y = x + length + 18 * scale, y - 2 * scale
    axes.annotate(
        "N", (x, y), xytext=(x, y + 20 * scale), ha="center", va="bottom", fontsize=8, fontweight="bold",
        arrowprops={"arrowstyle": "<|-", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}, zorder=8,
        gid="north",
    )  # fmt: skip
    first = axes.transData.transform((left, low))
    second = axes.transData.transform((x + 8 * scale, y + 32 * scale))
    return Bbox([first, second])


def _legend(axes: Axes, walk: Walk) -> None:
    states = [
        state for state in (FIRST, LATER, FAILED, CUT, AHEAD) if any(v.state == state for v in walk.visits)
    ]
    handles: list[Any] = [
        Line2D(
            [], [], ls="none", marker=MARKS[state], ms=8, mfc=COLOURS[state],
            mec=FAINT if state == AHEAD else "white", label=state,
        )
        for state in states
    ]  # fmt: skip
    handles.append(
        Line2D([], [], ls="none", marker=r"$\rightarrow$", ms=9, color=INK, label="looks this way")
    )
    drawn = {child.get_gid() for child in axes.get_children()}
    if "wrong-way" in drawn:
        handles.append(Line2D([], [], color=COLOURS[FAILED], lw=2, label="answered"))
    if "right-way" in drawn:
        handles.append(Line2D([], [], color=COLOURS[FIRST], lw=2, ls=(0, (2, 1)), label="would be right"))
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(handles)),
        fontsize=7.5, handlelength=1.6, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
