"""Atomic writes of text and JSON files, and durable appends to files of JSON lines."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from sftrl_ext.errors import SftrlError


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SftrlError: if it is missing or not JSON, with its path and the position.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SftrlError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SftrlError(f"{path}: not a JSON file ({error}).") from None


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[Any]:
    """Yield the values of a JSON Lines file; a missing file has none.

    Args:
        path: The file.
        torn_tail: Skip an incomplete last line, as an interrupted writer leaves it.

    Raises:
        SftrlError: for a line that is not JSON, with its number.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                if torn_tail and not line.endswith("\n"):
                    return
                raise SftrlError(f"{path}, line {number}: not JSON ({error}).") from None


def append_durably(file: TextIO, text: str) -> None:
    """Append to an open file and sync it to disk."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def drop_torn_tail(path: Path) -> None:
    """Remove an incomplete last line, so that appending is safe."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)


def import_file(path: Path, content: str) -> ModuleType:
    """Import a Python file of the user's, again at every call.

    Args:
        path: The file.
        content: What it is to hold, for the error ("reward functions").

    Raises:
        SftrlError: if there is no such file.
    """
    file = path.expanduser().resolve()
    spec = importlib.util.spec_from_file_location(f"sftrl_user_{abs(hash(str(file)))}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SftrlError(f"{path}: no such Python file of {content}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
