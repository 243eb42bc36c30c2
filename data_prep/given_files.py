"""Files that list instances for an evaluation: CSV, JSON or parquet, one hand or route in each row.

The name of the split such a list becomes says what it is compared as: `id_..` in distribution, `rule_..`
under the other rule, `visual_..` in the other look.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftrl_ext.envs.base import parse_facts
from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.files import parquet_errors, read_json

PLAYED_AS = {"id": "id", "rule": "rule_ood", "visual": "visual_ood"}
"""First part of a set's name to the split whose rule, suits or cities its instances have."""

SUFFIXES = (".csv", ".json", ".parquet")

_NAME = re.compile(rf"({'|'.join(PLAYED_AS)})_[a-z0-9_]+")


@dataclass(frozen=True)
class Record:
    """One row of a list.

    Attributes:
        where: File and row, for errors.
        fields: Its fields.
    """

    where: str
    fields: Mapping[str, Any]


def split_of_set(name: str, splits: Iterable[str]) -> str:
    """The split as which a set of given instances is played.

    Args:
        name: Name of the set.
        splits: Names that other splits have.

    Raises:
        SftrlError: if the name is another split's, or does not say what the set is compared as.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise SftrlError(
            f"{name!r} is no name for a set of given instances; expected id_.. (in distribution), rule_.. "
            "(the other rule) or visual_.. (the other look), in small letters, digits and _."
        )
    if name in set(splits):
        raise SftrlError(f"{name!r} is a split already; expected another name for a set of given instances.")
    return PLAYED_AS[match[1]]


def read_records(path: Path, key: str, fields: Iterable[str]) -> list[Record]:
    """Read the rows of a list.

    Args:
        path: A CSV file with a header, a JSON list, or a parquet file. In JSON a row may be the value of
            ``key`` alone. A parquet file of our schema gives the facts of its rows.
        key: The field that every row needs.
        fields: All fields that a row may have.

    Raises:
        SftrlError: naming file, row and field, what was found and expected.
    """
    allowed = [*fields]
    if not path.is_file():
        raise SftrlError(f"{path}: no such file; expected a list of instances ({', '.join(SUFFIXES)}).")
    rows = _rows(path)
    if not isinstance(rows, list) or not rows:
        actual = "an empty list" if rows == [] else type(rows).__name__
        raise SftrlError(f"{path}: expected a list with at least one row, found {actual}.")
    records = []
    for number, row in enumerate(rows):
        where = f"{path}: row {number}"
        values = dict(row) if isinstance(row, Mapping) else {key: row}
        if set(values) == {"facts"} and isinstance(values["facts"], Mapping):
            records.append(Record(where, values))
            continue
        values = {name: value for name, value in values.items() if value not in (None, "")}
        for name in values:
            if name not in allowed:
                raise SftrlError(f"{where}: {unknown_name('field', name, allowed)}")
        if key not in values:
            raise SftrlError(f"{where}: field {key!r} is missing; found {', '.join(values) or 'nothing'}.")
        records.append(Record(where, values))
    return records


def count_given(path: Path) -> int:
    """Number of instances in a list or a route file; 0 for a folder, and for a file that cannot be read."""
    try:
        rows = _rows(path)
    except (SftrlError, OSError):
        return 0
    if is_route_list(rows):
        rows = rows[0]
    return len(rows) if isinstance(rows, list) else 0


def is_route_list(data: object) -> bool:
    """True for the content of an authors' file of routes: a list of them, and a number."""
    return (
        isinstance(data, list) and len(data) == 2 and isinstance(data[0], list) and isinstance(data[1], int)
    )


def whole_number(record: Record, name: str, default: int | None = None) -> int:
    """A field that is a whole number, in CSV as digits.

    Raises:
        SftrlError: if it is missing without a default, or is anything else.
    """
    value = record.fields.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SftrlError(f"{record.where}: field {name!r} is {value!r}, expected a whole number >= 0.")
    return value


def _rows(path: Path) -> Any:
    """The content of a list, as the ending of its name says."""
    readers = dict(zip(SUFFIXES, (_csv_rows, read_json, _parquet_rows), strict=True))
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SftrlError(f"{path}: expected a file that ends in one of {', '.join(SUFFIXES)}.")
    return reader(path)


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            return [_csv_row(path, number, row) for number, row in enumerate(reader)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise SftrlError(f"{path}: not a CSV file ({error}).") from None


def _csv_row(path: Path, number: int, row: Mapping[str | None, Any]) -> dict[str, Any]:
    if None in row:
        raise SftrlError(
            f"{path}: row {number}: more values than columns: {row[None]}. A hand is one value, as in "
            '"K 5 2 4".'
        )
    return {str(name).strip(): value for name, value in row.items()}


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq  # composing and planning a recipe need no pyarrow

    with parquet_errors(path):
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=["extra_info"] if "extra_info" in names else None)
        rows: list[dict[str, Any]] = table.to_pylist()
    if "extra_info" not in names:
        return rows
    return [
        {"facts": parse_facts(row["extra_info"]["facts"], f"{path}: row {number}: extra_info.facts")}
        for number, row in enumerate(rows)
    ]


def as_text(value: object) -> str:
    """A value in an error, at most 80 characters."""
    return json.dumps(value, ensure_ascii=False, default=str)[:80]
