"""From the stored metrics of a run to figures, tables, a report, and the episode viewer.

`build_report` draws and writes (it needs matplotlib); `show_episodes` and `results_table` need no more than
the base install. Each is imported on use: a recipe is composed with the constants of `runs.compute` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftrl_ext.reports.build import ReportPaths, build_report
    from sftrl_ext.reports.episodes.show import show_episodes
    from sftrl_ext.reports.pages.tables import results_table

__all__ = ["ReportPaths", "build_report", "results_table", "show_episodes"]

_MODULES = {
    "ReportPaths": "build",
    "build_report": "build",
    "results_table": "pages.tables",
    "show_episodes": "episodes.show",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
