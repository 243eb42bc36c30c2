"""Deviations and budget as `sftrl plan` prints them: comments before the commands of a shell script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner.architectures import UnknownArchitecture
from sftrl_ext.experiments.planner.fit import check_fit
from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages
from sftrl_ext.experiments.planner.table import budget_lines
from sftrl_ext.experiments.recipe.paper_settings import deviations_of
from sftrl_ext.reports.pages.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from sftrl_ext.experiments.recipe.schema import Recipe


def deviation_lines(recipe: Recipe) -> Iterator[str]:
    """Deviations from the paper as a Markdown table; nothing for a recipe that is not of the paper."""
    rows = [list(row) for row in deviations_of(recipe)]
    if rows:
        yield f"{recipe.name} at {recipe.scale.name}: deviations from the paper ({recipe.source})"
        yield ""
        table = Table(["Setting", "The paper", "Ours", "Why"], rows, text_columns=4)
        yield from table.to_markdown().splitlines()
        yield ""


def print_budget(recipe: Recipe, console: Console, show: str = "all") -> None:
    """Print a recipe's budget, and refuse what its hardware cannot hold.

    Args:
        recipe: The composed recipe.
        console: Where it is printed.
        show: ``all``, ``budget``, or ``commands``, which prints nothing here.

    Raises:
        SftrlError: for a misfit, after the tables, unless ``scale.check_fit`` is false.
    """
    try:
        plans = plan_stages(recipe)
    except UnknownArchitecture as error:
        console.print(f"# no budget: {error}", markup=False, highlight=False, soft_wrap=True)
        return
    if show != "commands":
        for line in deviation_lines(recipe):
            console.print(f"# {line}".rstrip(), markup=False, highlight=False, soft_wrap=True)
        for line in budget_lines(recipe, plans):
            console.print(f"# {line}".rstrip(), markup=False, highlight=False, soft_wrap=True)
        console.print()
    check_fit(recipe, plans)
