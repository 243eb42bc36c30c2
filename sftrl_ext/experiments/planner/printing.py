"""The budget as `sftrl plan` prints it, before the commands: comments of the shell script that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner.architectures import UnknownArchitecture
from sftrl_ext.experiments.planner.fit import check_fit
from sftrl_ext.experiments.planner.stage_plan import plan_stages
from sftrl_ext.experiments.planner.table import budget_lines

if TYPE_CHECKING:
    from rich.console import Console

    from sftrl_ext.experiments.recipe import Recipe


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
        for line in budget_lines(recipe, plans):
            console.print(f"# {line}".rstrip(), markup=False, highlight=False, soft_wrap=True)
        console.print()
    check_fit(recipe, plans)
