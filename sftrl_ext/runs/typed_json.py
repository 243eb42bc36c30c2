"""Dataclasses from JSON: values are checked against the annotations; errors name source, key and value.

Numbers are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_jsonl_lines

T = TypeVar("T")

Count = Annotated[int, Field(ge=0)]
"""A whole number that is not negative."""

Amount = Annotated[float, Field(ge=0, lt=1e30)]
"""A number that is not negative, and so small that products of a few are finite."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # JSON of Python may hold NaN and Infinity.
    return TypeAdapter(with_config(ConfigDict(allow_inf_nan=False))(kind))


def from_json(kind: type[T], value: Any, source: str) -> T:
    """Build a dataclass from parsed JSON; keys that it does not have are ignored.

    Args:
        kind: The dataclass.
        value: The parsed JSON.
        source: File, and line, for errors.

    Raises:
        SftrlError: naming the source, the first wrong key, what is expected and what was found.
    """
    try:
        record: T = _adapter(cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        raise SftrlError(f"{source}{_first_problem(error)}.") from None
    return record


def _first_problem(error: ValidationError) -> str:
    """Key, expectation and value of the first error."""
    first = error.errors(include_url=False)[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    at = f": key {key.lstrip('.')!r}: " if key else ": "
    if first["type"] == "value_error":  # raised by a dataclass itself, which names what it found
        return f"{at}{first['ctx']['error']}"
    value = "no such key" if first["type"] == "missing" else repr(first["input"])[:60]
    return f"{at}{first['msg']}, found {value}"


def read_records(
    kind: type[T], path: Path, on_torn_tail: Callable[[], None] | None = None
) -> Iterator[tuple[int, T]]:
    """Yield (line number, dataclass) of a JSON-lines file; a missing file has none.

    Args:
        kind: The dataclass.
        path: The file.
        on_torn_tail: As in `sftrl_ext.files.read_jsonl_lines`.

    Raises:
        SftrlError: naming file and line, if a line is no such record.
    """
    for number, value in read_jsonl_lines(path, on_torn_tail):
        yield number, from_json(kind, value, f"{path}, line {number}")
