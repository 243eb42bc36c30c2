"""Writing files so that a crash leaves the old one or the new one, never half of one."""

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
    """Write ``text`` to a temporary name beside ``path``, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, readable by people."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SftrlError: if it is missing or not JSON, with its name and the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SftrlError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SftrlError(f"{path}: not a JSON file ({error}).") from None


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[Any]:
    """Yield the values of a file of one JSON value per line; a missing file has none.

    Args:
        path: The file.
        torn_tail: Accept a last line cut short, as a killed writer leaves it, and skip it.

    Raises:
        SftrlError: at a line that is not JSON, with its number.
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
    """Write to an open file; the text is on disk when this returns."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def drop_torn_tail(path: Path) -> None:
    """Cut a last line without its newline off a file of lines, so that appending is safe again."""
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
