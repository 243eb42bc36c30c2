"""Verb ``sftrl new``: packages to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console


def add_new_verb(verbs: Any) -> None:
    """Add the verb to the parser."""
    new = verbs.add_parser("new", help="write a package with a task of your own")
    kinds = new.add_subparsers(required=True, metavar="task")
    task = kinds.add_parser("task", help="write an installable package with a task that runs as it is")
    task.add_argument("name", help="name of the task and of its package, as in my_task")
    task.add_argument("--out", type=Path, default=Path(), help="folder to put it in (default: this one)")
    task.set_defaults(run=_task)


def _task(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.new_task import write_task

    for path in write_task(args.name, args.out):
        console.print(str(path), markup=False, highlight=False)
    folder = args.out / args.name
    console.print(f"Run it: sftrl run {folder / 'recipe.yaml'} --scale smoke", markup=False, highlight=False)
