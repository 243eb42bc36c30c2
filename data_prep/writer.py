"""Writing parquet in constant memory: row groups are streamed to a temporary name, then renamed.

A build that is interrupted leaves the old file, or none; never half a file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import SCHEMA, check_schema
from sftrl_ext.errors import SftrlError

ROW_GROUP = 16_384
"""Rows that are built and written together."""

_SILENT_S = 3600.0


def write_rows(
    path: str | Path,
    tables: Iterable[pa.Table],
    schema: pa.Schema | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write tables to one parquet file as they come.

    Args:
        path: The file; its folder is made if there is none.
        tables: Each becomes a row group.
        schema: Schema of the file, and of every table; by default that of the first one. Its metadata are
            always those of the first table.
        progress: Takes the number of rows written so far, after each table.

    Returns:
        How many rows were written.

    Raises:
        SftrlError: if the path is a folder or a table has another schema.
    """
    path = Path(path)
    if path.is_dir():
        raise SftrlError(f"{path}: is a folder, expected the name of a parquet file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    rows = 0
    stream = iter(tables)
    try:
        table = next(stream, None)
        if schema is None:
            schema = SCHEMA if table is None else check_schema(table.schema, path)
        if table is not None:
            schema = schema.with_metadata(table.schema.metadata)
        with pq.ParquetWriter(name, schema, compression="zstd") as writer:
            while table is not None:
                check_schema(table.schema, path)
                writer.write_table(table)
                rows += table.num_rows
                if progress is not None:
                    progress(rows)
                table = next(stream, None)
        # A temporary file can be read by its owner only.
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return rows


def _sweep(path: Path) -> None:
    """Remove what killed builds of the same file left; one that still writes is not an hour silent."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _SILENT_S:
                part.unlink()
