"""The dataset card's table of routes: their actions, rails and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from data_prep.task_card import TaskCard
from sftrl_ext.envs.virl.track import read_track

RouteKey = tuple[tuple[float, float], ...]
"""The start of a route and its milestones."""


class RouteCard(TaskCard):
    """The routes of one file.

    Attributes:
        routes: Different routes, by their points.
        rails: Different rails.
    """

    intro = (
        "Made by `data_prep`. A *route* is told by its start and milestones; a *rail* is a route with the",
        "points of one walk. The splits `..._unseen` hold only routes that no training split holds.",
    )
    heads = ("actions", "observed as")
    columns = ("rails:", "routes:")
    shared = "Routes"

    def __init__(self) -> None:
        super().__init__()
        self.routes: set[RouteKey] = set()
        self.rails: set[tuple[RouteKey, int]] = set()

    def add(self, facts: Mapping[str, Any]) -> None:
        """See `TaskCard`."""
        track = read_track(facts["route"])
        key = (track.start.geocode, *(leg.end.geocode for leg in track.legs))
        self.rules[facts["action_space"]] += 1
        size = facts.get("image_size")
        self.shown[f"{facts['modality']} {size}x{size}" if size else str(facts["modality"])] += 1
        self.routes.add(key)
        self.rails.add((key, facts["rail_seed"]))

    def cells(self) -> Sequence[str]:
        """See `TaskCard`."""
        return f"{len(self.rails):,}", f"{len(self.routes):,}"

    def instances(self) -> Set[Any]:
        """See `TaskCard`."""
        return self.routes
