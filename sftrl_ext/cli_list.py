"""Verb ``sftrl list``: recipes, tasks, splits, rules, rewards, and runs with their states."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftrl_ext.cli_plugin import add_plugin_option
from sftrl_ext.plain_text import one_line
from sftrl_ext.plugins import load_plugins

Rows = Iterator[tuple[str, ...]]


def add_list_verb(verbs: Any) -> None:
    """Add the verb to the parser."""
    verb = verbs.add_parser("list", help="list recipes, tasks, splits, rules, rewards and runs")
    verb.add_argument("what", nargs="?", choices=list(LISTS), help="one of these lists; default: all")
    verb.add_argument("folder", nargs="?", type=Path, help="folder of runs; default: runs")
    add_plugin_option(verb)
    verb.set_defaults(run=_list)


def _list(args: argparse.Namespace, console: Console) -> None:
    load_plugins(args.plugins)
    for name in [args.what] if args.what else LISTS:
        header, rows = LISTS[name]
        table = Table(*header, title=name, title_justify="left", title_style="bold", box=None)
        for row in rows(args.folder):
            table.add_row(*(Text(one_line(cell)) for cell in row))
        wide = console if console.is_terminal else Console(file=console.file, width=200)
        wide.print(table)
        if args.what is None:
            console.print()


def _recipes(folder: Path | None) -> Rows:
    from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes
    from sftrl_ext.files import read_yaml

    for path in distinct_recipes():
        content = read_yaml(path)
        yield path.stem, ", ".join(content.get("also") or []), str(content["title"])


def _tasks(folder: Path | None) -> Rows:
    from sftrl_ext.envs import TASKS

    for name in sorted(TASKS):
        yield name, ", ".join(sorted(set(TASKS[name].data_sources.values()))), str(TASKS[name].attempts)


def _splits(folder: Path | None) -> Rows:
    from data_prep.task_rows import find_rows
    from sftrl_ext.envs import TASKS
    from sftrl_ext.reports.analysis.splits import split_order, split_title

    for task in sorted(name for name in TASKS if TASKS[name].rows):  # others have no splits of their own
        for split in split_order(find_rows(task).split_names()):
            yield task, split, split_title(split, task)


def _rules(folder: Path | None) -> Rows:
    from sftrl_ext.envs import TASKS

    for task in sorted(TASKS):
        yield from ((task, name, statement) for name, statement in TASKS[task].rules().items())


def _rewards(folder: Path | None) -> Rows:
    from sftrl_ext.reward_fns import REWARDS

    sources: dict[int, list[str]] = {}
    for key in REWARDS:
        if "/" in key:
            sources.setdefault(id(REWARDS[key]), []).append(key)
    for name in (key for key in REWARDS if "/" not in key):
        function = REWARDS[name]
        text = (function.__doc__ or "").strip().partition("\n")[0]
        yield name, ", ".join(sources.get(id(function), [])), text


def _runs(folder: Path | None) -> Rows:
    from sftrl_ext.experiments.run_names import RUNS, list_runs
    from sftrl_ext.reports.pages.tables import duration

    for run in list_runs(folder or RUNS) if folder or RUNS.is_dir() else ():
        wall = sum(stage.wall_s for stage in run.state.stages if not stage.shared_from)
        yield str(run.folder), run.stages, run.status, duration(wall)


LISTS: dict[str, tuple[tuple[str, ...], Callable[[Path | None], Rows]]] = {
    "recipes": (("Recipe", "Also", "Title"), _recipes),
    "tasks": (("Task", "Data sources", "Attempts"), _tasks),
    "splits": (("Task", "Split", "Title"), _splits),
    "rules": (("Task", "Rule", "Statement"), _rules),
    "rewards": (("Reward", "Default of", "Description"), _rewards),
    "runs": (("Run", "Stages", "State", "Wall time"), _runs),
}
"""Lists by name: header, and rows given the folder of runs."""
