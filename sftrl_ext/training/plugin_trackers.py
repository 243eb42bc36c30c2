"""Trackers that plug-ins register, beside those that verl knows.

A tracker is made in the trainer's process by a function of verl's project name, the stage's name and the
training config. It has ``log(data, step)``, called at every step with the metrics by name, and ``finish()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from sftrl_ext.errors import Registry

PLUGIN_TRACKERS: Registry[Callable[[str, str, Any], Any]] = Registry("tracker")
"""Name in ``trackers`` of a recipe to the function that makes the tracker."""


def verl_utils_tracking_tracking(module: ModuleType) -> None:
    """Add the trackers of plug-ins to verl's `Tracking`, which refuses names that are not its own."""

    if hasattr(module.Tracking, "plugin_trackers"):  # done before
        return

    class Tracking(module.Tracking):  # type: ignore[name-defined, misc]
        """verl's tracking, with the trackers of plug-ins."""

        plugin_trackers: Mapping[str, Any] = {}

        def __init__(
            self,
            project_name: str,
            experiment_name: str,
            default_backend: str | list[str] = "console",
            config: Any = None,
        ) -> None:
            names = [default_backend] if isinstance(default_backend, str) else list(default_backend)
            added = [name for name in names if name in PLUGIN_TRACKERS]
            super().__init__(project_name, experiment_name, [n for n in names if n not in added], config)
            self.plugin_trackers = {
                name: PLUGIN_TRACKERS[name](project_name, experiment_name, config) for name in added
            }
            self.logger.update(self.plugin_trackers)

        def finish(self, exit_code: int = 0) -> None:
            """Finish every tracker, once."""
            if not getattr(self, "_finished", False):  # called too where the constructor has failed
                for tracker in self.plugin_trackers.values():
                    tracker.finish()
            super().finish(exit_code)

    module.Tracking = Tracking  # type: ignore[attr-defined]
