"""The verb ``sftrl template``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console


def add_template_verb(verbs: Any) -> None:
    """Add it to the subparsers of the command line."""
    template = verbs.add_parser("template", help="write prompt templates from the authors' code")
    kinds = template.add_subparsers(required=True, metavar="from")
    read = kinds.add_parser("from", help="read a checkout of the authors' repository; nothing in it is run")
    read.add_argument("checkout", type=Path, help="folder of the checkout")
    read.add_argument("--out", type=Path, default=Path("templates"), help="folder of the templates")
    read.add_argument(
        "--example", action="store_true", help="prompts with an example answer, which served models are given"
    )
    read.set_defaults(run=_from)


def _from(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.envs.template_import import write_templates

    for path in write_templates(args.checkout, args.out, args.example):
        console.print(str(path), highlight=False)
