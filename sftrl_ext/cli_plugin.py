"""Option ``--plugin`` of the command line."""

from __future__ import annotations

import argparse


def add_plugin_option(*verbs: argparse.ArgumentParser) -> None:
    """Add the option to verbs that look up rules, splits, rewards or tasks."""
    for verb in verbs:
        verb.add_argument(
            "--plugin",
            dest="plugins",
            action="append",
            default=[],
            metavar="MODULE",
            help="module or .py file that registers tasks, rules, splits, rewards, .. of yours",
        )
