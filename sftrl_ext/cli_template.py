"""Verb ``sftrl template``: prompt templates from the authors' code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console


def add_template_verb(verbs: Any) -> None:
    """Add the verb to the parser."""
    template = verbs.add_parser("template", help="write prompt templates from the authors' code")
    kinds = template.add_subparsers(required=True, metavar="from")
    read = kinds.add_parser("from", help="parse a checkout of the authors' repository, without executing it")
    read.add_argument("checkout", type=Path, help="folder of the checkout")
    read.add_argument("--out", type=Path, default=Path("templates"), help="output folder")
    read.add_argument(
        "--example",
        action="store_true",
        help="use the prompts with an example answer, which the authors give to served models",
    )
    read.set_defaults(run=_from)


def _from(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.envs.template_import import write_templates

    for path in write_templates(args.checkout, args.out, args.example):
        console.print(str(path), highlight=False)
