"""Language of the product: names are the field's nouns, and a docstring begins with what it describes.

The goal is `NAME_SHARE` and `QUESTION_SHARE`. A room that misses it has a budget, its count when the budget
was set; lower it with every room that gets better.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

VAGUE = re.compile(
    "_*(told|said|asked|found|made|own|one|words|whole|there|how|place|known|taken|laid|much|many|least)_*"
)
"""Names that say nothing; the field's nouns are record, settings, index, requested, text, args, batch."""

NAME_SHARE, QUESTION_SHARE = 0.005, 0.03
"""Goals: vague names among a room's assigned names, and questions among its docstrings."""

BUDGETS = {
    "base": (2, 0),
    "data_prep": (53, 23),
    "envs": (106, 91),
    "experiments": (148, 54),
    "reports": (270, 61),
    "reward_fns": (0, 1),
}
"""Vague names and questions of the rooms that miss a goal."""

QUESTIONS = ("What", "Whether", "Where", "How")
"""First words of a docstring that asks instead of naming its subject."""


def room(path: Path) -> str:
    """Room of a product file: a folder of the package, or ``base`` for a file at its top."""
    parts = path.relative_to(ROOT).parts
    if parts[0] != "sftrl_ext":
        return parts[0]
    return parts[1] if len(parts) > 2 else "base"


@cache
def trees() -> dict[Path, ast.Module]:
    """Parsed files of the product."""
    paths = [path for top in ("sftrl_ext", "data_prep") for path in sorted((ROOT / top).rglob("*.py"))]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def assigned_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every parameter, assigned variable, attribute of ``self`` and field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        attributes = [
            text
            for before, text in zip(body, body[1:], strict=False)
            if isinstance(before, ast.Assign | ast.AnnAssign)
        ]
        for statement in [*body[:1], *attributes]:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def vague_names() -> list[tuple[str, str]]:
    """Room and location of every vague name."""
    return [
        (room(path), f"{path.relative_to(ROOT)}:{line}: {name}")
        for path, tree in trees().items()
        for line, name in assigned_names(tree)
        if VAGUE.fullmatch(name)
    ]


def questions() -> list[tuple[str, str]]:
    """Room and location of every docstring that begins with a question word."""
    return [
        (room(path), f"{path.relative_to(ROOT)}:{line}: {text.split()[0]} ..")
        for path, tree in trees().items()
        for line, text in docstrings(tree)
        if text.split() and text.split()[0] in QUESTIONS
    ]


@pytest.mark.parametrize("room_name", sorted({room(path) for path in trees()}))
def test_names_are_the_fields_nouns(room_name: str) -> None:
    names = [
        name for path, tree in trees().items() if room(path) == room_name for name in assigned_names(tree)
    ]
    budget, _ = BUDGETS.get(room_name, (0, 0))
    check("names", [where for of, where in vague_names() if of == room_name], NAME_SHARE * len(names), budget)


@pytest.mark.parametrize("room_name", sorted({room(path) for path in trees()}))
def test_docstrings_say_what_a_thing_is(room_name: str) -> None:
    texts = [text for path, tree in trees().items() if room(path) == room_name for text in docstrings(tree)]
    _, budget = BUDGETS.get(room_name, (0, 0))
    check(
        "docstrings",
        [where for of, where in questions() if of == room_name],
        QUESTION_SHARE * len(texts),
        budget,
    )


def check(kind: str, locations: list[str], goal: float, budget: int) -> None:
    """Fail with all locations if a room has more than the goal, and more than its budget."""
    limit = max(int(goal), budget)
    assert len(locations) <= limit, f"{len(locations)} {kind}, at most {limit}:\n" + "\n".join(locations)
