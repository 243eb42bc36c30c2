"""The Gymnasium environment ``sftrl/VIRL-v0``: one route per episode, one response text per step.

Reward: +1 for the right action, -1 for a wrong one or none, -1.5 for a wrong one with a wrong observation,
and -1 more on the last of ``max_attempts`` failed attempts at one point, which ends the route. All randomness
comes from the environment's own generator, which ``reset(seed)`` seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.episode_env import EpisodeEnv, checked_options, verdict_info
from sftrl_ext.envs.virl.episode import NavigationEpisode, PlaySettings, make_facts, track_of
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.rail import Point
from sftrl_ext.envs.virl.routes import Route, RouteFile, load_routes
from sftrl_ext.envs.virl.track import POINTS_PER_LEG, Track
from sftrl_ext.errors import SftrlError

_OPTIONS = ("route_index",)


class NavigationEnv(EpisodeEnv[NavigationEpisode]):
    """Walking along instructions; see the module.

    Observation: ``{"messages": [{"role": ..., "content": ...}, ...]}``, the dialogue at the current point.
    With images also ``"images"``, a list of one RGB picture of Pillow, which the ``<image>`` in the first
    user message stands for. Action: any text.

    Args:
        routes: Path of a file of routes, or routes.
        action_space: "absolute" or "relative"; the words of a turn.
        modality: "text" or "image".
        profile: "exact" or "authors".
        drop_rate: Probability that a point between milestones is left out.
        points_per_leg: Into how many parts a leg is cut; there may be a point at each.
        max_attempts: Attempts that are graded at each point.
        panoramas: Folder of the street views; needed for images.
        gps_to_pano: Path of the map from points to panoramas, or the map; needed for images. With text,
            points are moved to panoramas if it is given.
        template: Name or path of the prompt template.
        exceeded_penalty: Added to the reward of the failed attempt that ends the route.
        missing_panorama: "error" or "skip"; what a point between milestones without a panorama is.
        image_size: Side of the picture in pixels; 1200 if not given. Only with modality "image".
        skip_bad: Leave out bad routes of the file instead of an error; see `load_routes`.

    Raises:
        SftrlError: for an unknown name, a value out of range, or a file that is malformed.
    """

    def __init__(
        self,
        routes: str | Path | RouteFile | Sequence[Route],
        action_space: str = "absolute",
        modality: str = "text",
        profile: str = "exact",
        drop_rate: float = 0.5,
        points_per_leg: int = POINTS_PER_LEG,
        max_attempts: int = 2,
        panoramas: str | Path | None = None,
        gps_to_pano: str | Path | PanoramaMap | None = None,
        *,
        template: str = "default",
        exceeded_penalty: float = -1.0,
        missing_panorama: str = "skip",
        image_size: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        shown_as_image = modality == "image"
        self.settings = PlaySettings(
            action_space=action_space,
            max_attempts=max_attempts,
            profile=profile,
            template=template,
            modality=modality,
            exceeded_penalty=exceeded_penalty,
            drop_rate=drop_rate,
            street_views=str(panoramas) if shown_as_image and panoramas is not None else None,
            image_size=image_size,
        )
        if isinstance(routes, (str, Path)):
            routes = load_routes(routes, skip_bad)
        self.route_file = routes if isinstance(routes, RouteFile) else RouteFile(tuple(routes))
        if not self.route_file.routes:
            raise SftrlError("routes is empty; expected at least one route.")
        if isinstance(gps_to_pano, (str, Path)):
            gps_to_pano = PanoramaMap.load(gps_to_pano)
        self._panoramas = gps_to_pano
        self._points_per_leg = points_per_leg
        self._missing = missing_panorama
        self._tracks: dict[int, Track] = {}
        self._track(self.route_file.routes[0])  # what is wrong with the settings shows now
        size = self.settings.image_size
        super().__init__(None if size is None else (size, size))

    @property
    def rail(self) -> list[Point]:
        """The points of the episode being played."""
        return list(self.episode.rail.points)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose a route and draw its rail.

        Args:
            seed: Seed of both; the same seed and options give the same episode.
            options: ``route_index``, the route's place in its file.

        Raises:
            SftrlError: if an option is unknown, there is no such route, or it lacks a panorama.
        """
        super().reset(seed=seed)
        options = dict(checked_options(options, _OPTIONS))
        chosen = int(self.np_random.integers(len(self.route_file.routes)))
        rail_seed = int(self.np_random.integers(2**31))
        index = options.get("route_index")
        route = self.route_file.routes[chosen] if index is None else self.route_file.route(index)
        self._episode = NavigationEpisode(make_facts(self._track(route), self.settings, rail_seed))
        return self._observation(), self._info(None)

    def _track(self, route: Route) -> Track:
        if route.index not in self._tracks:
            self._tracks[route.index] = track_of(
                route, self.settings, self._panoramas, self._points_per_leg, self._missing
            )
        return self._tracks[route.index]

    def _info(self, verdict: Verdict | None) -> dict[str, Any]:
        """State of the point that waits for an answer, and of the last answer."""
        episode = self.episode
        return {
            "route_index": episode.track.index,
            "point_index": episode.position,
            "points": len(episode.rail.points),
            "expected_action": episode.point.action,
            "observation": episode.point.observation,
            "history": episode.history,
            "attempt": episode.tries,
            "solved": episode.solved,
            **verdict_info(verdict),
        }
