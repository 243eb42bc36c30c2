"""The page of the command line, made of the parser itself when the documentation is built."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sftrl_ext.cli import _parser
from sftrl_ext.plain_text import markdown_line

HEAD = """# Command line

Made from the parser. `sftrl <verb> --help` prints the same.
"""


def cli_page() -> str:
    """The page as Markdown: a section for each verb, a row for each argument."""
    return HEAD + "\n".join(_section(*verb) for verb in _verbs(_parser(), "sftrl"))


def _verbs(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of every verb, those of a verb's own verbs included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help for choice in action._choices_actions}
            for verb, inner in action.choices.items():
                nested = [*_verbs(inner, f"{name} {verb}")]
                yield from nested or [(f"{name} {verb}", texts.get(verb) or "", inner)]


def _section(name: str, text: str, parser: argparse.ArgumentParser) -> str:
    rows = [_row(action) for action in parser._actions if action.dest != "help"]
    head = ["| argument | default | meaning |", "|---|---|---|"] if rows else []
    return "\n".join(["", f"## {name}", "", f"{text[:1].upper()}{text[1:]}.", "", *head, *rows, ""])


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    unset = action.default in ([], argparse.SUPPRESS) or any(action.default is no for no in (None, False))
    default = "" if unset else f"`{action.default}`"
    if action.required:
        default = "needed"
    meaning = (action.help or ", ".join(map(str, action.choices or ()))).replace("%%", "%")
    cells = (f"`{name}`", default, markdown_line(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
