"""Outcome of a run on the console: its verdicts, and its numbers at equal compute."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftrl_ext.plain_text import printable
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.tables import compared_rows, success_table

_WIDEST = 200
"""Columns of a table where there is no terminal: a log is not wrapped."""


def print_outcome(run_dir: Path, console: Console) -> None:
    """Print the verdicts of a run and the table of its compared checkpoints.

    Args:
        run_dir: Run folder.
        console: Where they are printed.

    Raises:
        SftrlError: if it is no run folder, or a file in it is malformed.
    """
    analysis = analyse(run_dir)
    for headline in dict.fromkeys(verdict.verdict.headline for verdict in analysis.verdicts):
        console.print(Text(printable(headline), style="bold" if analysis.no_claim is None else "bold red"))
    rows = compared_rows(analysis)
    if not rows:
        return
    numbers = success_table(analysis, rows, paper=True)
    grid = Table(title=f"{analysis.measure} ± SE in percent", title_justify="left", box=None)
    for index, name in enumerate(numbers.header):
        grid.add_column(Text(name), justify="left" if index < numbers.text_columns else "right")
    for row in numbers.rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    console.print()
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDEST)
    wide.print(grid)
