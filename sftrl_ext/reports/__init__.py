"""From the stored metrics of a run to figures, tables, a report, and the episode viewer.

`build_report` draws and writes (it needs matplotlib); `show_episodes` and `results_table` need no more than
the base install.
"""

from __future__ import annotations

from sftrl_ext.reports.build import ReportPaths, build_report
from sftrl_ext.reports.show import show_episodes
from sftrl_ext.reports.tables import results_table

__all__ = ["ReportPaths", "build_report", "results_table", "show_episodes"]
