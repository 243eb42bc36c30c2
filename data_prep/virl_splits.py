"""Splits of routes: named kinds of walks, each with a data source of its own.

``seen`` and ``held_out`` are the two parts of the routes of a file: training walks only ``seen`` ones. Which
part a route is in depends on its points alone (`data_prep.virl_sources.held_out`). A new split is one line,
here or in any other package::

    register_route_split("visual_rule_ood", action_space="relative", away=True, part="all")
"""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.schema import data_source
from sftrl_ext.envs.virl.rail import ACTION_SPACES
from sftrl_ext.envs.virl.task import VIRL
from sftrl_ext.errors import Registry, SftrlError, unknown_name

TASK_OF = VIRL.data_sources
"""Modality to the task's name in data sources."""

PARTS = ("seen", "held_out", "all")
"""Parts of the routes."""


@dataclass(frozen=True)
class RouteSplit:
    """A named set of walks.

    Attributes:
        name: Its name.
        part: A name of `PARTS`.
        action_space: "absolute" or "relative"; the words of a turn.
        away: True if its routes are those of the other cities.
        routes_of: A split whose evaluation routes and rails it walks: the two compare point by point.
    """

    name: str
    part: str = "seen"
    action_space: str = "absolute"
    away: bool = False
    routes_of: str = ""

    def data_source(self, modality: str = "text") -> str:
        """Key that rewards and validation metrics go by: ``virl_l/<name>``, for images ``virl_vl/<name>``.

        Raises:
            SftrlError: if the modality is unknown.
        """
        return data_source(TASK_OF, modality, self.name)

    def stream(self, train: bool) -> str:
        """Name of the random stream of its routes and rails; no evaluation shares one with training."""
        return f"train/{self.name}" if train else f"eval/{self.routes_of or self.name}"


ROUTE_SPLITS: Registry[RouteSplit] = Registry("split of routes")
"""Split name to split."""


def register_route_split(
    name: str, *, part: str = "seen", action_space: str = "absolute", away: bool = False, routes_of: str = ""
) -> RouteSplit:
    """File a split under its name.

    Args:
        name: The split's name.
        part: "seen", "held_out" or "all" of the routes.
        action_space: "absolute" or "relative".
        away: True if its routes are those of the other cities.
        routes_of: A split whose evaluation routes and rails it walks.

    Raises:
        SftrlError: if the name is taken, or the part or the action space is unknown.
    """
    if part not in PARTS:
        raise unknown_name("part of the routes", part, PARTS)
    if action_space not in ACTION_SPACES:
        raise unknown_name("action space", action_space, ACTION_SPACES)
    split = RouteSplit(name, part, action_space, away, routes_of)
    if routes_of:
        other = ROUTE_SPLITS[routes_of]
        if (other.part, other.away) != (part, away):
            raise SftrlError(f"split {name!r} walks other routes than {routes_of!r}; expected the same part.")
    ROUTE_SPLITS.add(name, split)
    return split


register_route_split("id")
register_route_split("id_unseen", part="held_out")
register_route_split("rule_ood", action_space="relative", routes_of="id")
register_route_split("rule_ood_unseen", part="held_out", action_space="relative", routes_of="id_unseen")
register_route_split("visual_ood", part="all", away=True)
