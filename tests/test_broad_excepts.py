"""No fault is swallowed: handlers of all exceptions raise again, or have a comment that says why not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for package in ("sftrl_ext", "data_prep") for path in sorted((ROOT / package).rglob("*.py"))]


def broad_handlers(source):
    """Lines of handlers of all exceptions that neither raise at their end nor have a comment."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
            broad = node.type is None or {"Exception", "BaseException"} & set(_texts(caught))
            if broad and not isinstance(node.body[-1], ast.Raise) and "#" not in lines[node.lineno - 1]:
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from [node.lineno] if {"Exception", "BaseException"} & set(_texts(node.args)) else []


def _texts(nodes):
    return [ast.unparse(node) for node in nodes]


@pytest.mark.parametrize(
    ("handler", "refused"),
    [
        ("except Exception:\n    pass", True),
        ("except:\n    pass", True),
        ("except (ValueError, BaseException):\n    score = 0", True),
        ("except Exception as error:\n    raise ValueError from error", False),
        ("except Exception:  # the reason\n    pass", False),
        ("except ValueError:\n    pass", False),
    ],
)
def test_a_broad_handler_needs_a_reason(handler, refused):
    assert bool(list(broad_handlers(f"try:\n    x()\n{handler}\n"))) is refused


def test_no_fault_is_swallowed_without_a_reason():
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in broad_handlers(path.read_text())
    ]
    assert len(FILES) > 200 and not found
