"""Atomic writes of text and JSON files, and durable appends to files of JSON lines."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from sftrl_ext.errors import SftrlError, first_line


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Path of a temporary file beside ``path``, which it replaces at the end; an error leaves no trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def link_or_copy(source: str | Path, target: str | Path) -> str | Path:
    """Put a file at a second path without a second copy on the disk, where the file system can.

    Returns:
        ``target``, as copy functions of `shutil` do.
    """
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SftrlError: if it is missing or not JSON, with its path and the position.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SftrlError(f"{path}: no such file.") from None
    except (ValueError, RecursionError) as error:
        raise SftrlError(f"{path}: not a JSON file ({error}).") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        SftrlError: if it is missing or not YAML, with its path and the position.
    """
    import yaml

    with yaml_errors(path):
        return yaml.safe_load(path.read_text(encoding="utf-8"))


@contextmanager
def yaml_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading a YAML file into errors that name it and the position."""
    import yaml

    try:
        yield
    except FileNotFoundError:
        raise SftrlError(f"{path}: no such file.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise SftrlError(f"{path}: not a YAML file: {error.problem}{at}.") from None
    # Some scalars, such as the date 2020-99-99, fail outside the parser.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SftrlError(f"{path}: not a YAML file: {first_line(error)}.") from None


@contextmanager
def parquet_errors(path: str | Path) -> Iterator[None]:
    """Turn errors of reading a parquet file into errors that name it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise SftrlError(f"{path}: no such file.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        # pyarrow has no error of its own for broken pages: they are an OSError without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SftrlError(f"{path}: not a parquet file, or a broken one ({first_line(error)}).") from None


def read_jsonl_lines(path: Path, on_torn_tail: Callable[[], None] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) of a file of one JSON value per line; a missing file has none.

    Args:
        path: The file.
        on_torn_tail: Called for a last line cut short, as a killed writer leaves it, which is skipped. None:
            such a line is an error.

    Raises:
        SftrlError: at a line that is not JSON, with its number.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                if on_torn_tail is not None and not line.endswith("\n"):
                    on_torn_tail()
                    return
                raise SftrlError(
                    f"{path}, line {number}: not JSON ({error}); found {line.strip()[:60]!r}."
                ) from None
            yield number, value


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[Any]:
    """Yield the values of a JSON Lines file; a missing file has none.

    Args:
        path: The file.
        torn_tail: Skip an incomplete last line, as an interrupted writer leaves it.

    Raises:
        SftrlError: for a line that is not JSON, with its number.
    """
    return (value for _, value in read_jsonl_lines(path, (lambda: None) if torn_tail else None))


def append_lines(path: Path, values: Iterable[Any]) -> None:
    """Append JSON lines; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        append_durably(file, jsonl(values))


def jsonl(values: Iterable[Any]) -> str:
    """One JSON value per line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def append_durably(file: TextIO, text: str) -> None:
    """Append to an open file and sync it to disk; a full disk leaves the file as it was."""
    descriptor, rest = file.fileno(), text.encode("utf-8")
    size = os.fstat(descriptor).st_size
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


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
    # The same name in every process, so that objects of its classes can be pickled.
    name = f"sftrl_user_{zlib.crc32(str(file).encode()):08x}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SftrlError(f"{path}: no such Python file of {content}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
