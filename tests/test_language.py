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

ROOT = Path(__file__).parents[1]

VAGUE = re.compile(
    "_*(told|said|asked|found|made|own|one|words|whole|there|how|place|known|taken|laid|much|many|least)_*"
)
"""Names that say nothing; the field's nouns are record, settings, index, requested, text, args, batch."""

NAME_SHARE, QUESTION_SHARE = 0.005, 0.03
"""Goals: vague names among a room's assigned names, and questions among its docstrings."""

BUDGETS: dict[str, tuple[int, int]] = {}
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


@cache
def names_of_rooms() -> dict[str, list[tuple[str, str]]]:
    """Name and location of every assigned name, by room."""
    rooms: dict[str, list[tuple[str, str]]] = {}
    for path, tree in trees().items():
        location = path.relative_to(ROOT)
        names = [(name, f"{location}:{line}: {name}") for line, name in assigned_names(tree)]
        rooms.setdefault(room(path), []).extend(names)
    return rooms


@cache
def docstrings_of_rooms() -> dict[str, list[tuple[str, str]]]:
    """First word and location of every docstring, by room."""
    rooms: dict[str, list[tuple[str, str]]] = {}
    for path, tree in trees().items():
        location = path.relative_to(ROOT)
        words = [((text.split() or [""])[0], f"{location}:{line}") for line, text in docstrings(tree)]
        rooms.setdefault(room(path), []).extend((word, f"{where}: {word} ..") for word, where in words)
    return rooms


def test_names_are_the_fields_nouns() -> None:
    for name, names in names_of_rooms().items():
        vague = [location for word, location in names if VAGUE.fullmatch(word)]
        check(f"vague names in {name}", vague, NAME_SHARE * len(names), BUDGETS.get(name, (0, 0))[0])


def test_docstrings_say_what_a_thing_is() -> None:
    for name, texts in docstrings_of_rooms().items():
        asking = [location for word, location in texts if word in QUESTIONS]
        check(f"questions in {name}", asking, QUESTION_SHARE * len(texts), BUDGETS.get(name, (0, 0))[1])


def check(kind: str, locations: list[str], goal: float, budget: int) -> None:
    """Fail with all locations if a room has more than the goal, and more than its budget."""
    limit = max(int(goal), budget)
    assert len(locations) <= limit, f"{len(locations)} {kind}, at most {limit}:\n" + "\n".join(locations)
