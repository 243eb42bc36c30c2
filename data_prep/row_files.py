"""Rows of a user's file for a training stage: a parquet file of our schema, or the authors' ``data.json``.

Every row is checked as it is read, and must be of the task that is trained. A file with fewer rows than a
stage needs is repeated; of a longer one the first rows are read.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.authors import imported_tables
from data_prep.images import IMAGE_ROW_GROUP
from data_prep.origins import Origin, file_digest
from data_prep.schema import read_schema, with_loss_mask
from data_prep.task_rows import find_rows
from data_prep.validate import FileReport, check_row, expect_correct
from data_prep.writer import ROW_GROUP, write_rows
from sftrl_ext.envs.base import parse_facts
from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import parquet_errors

Progress = Callable[[int], None]
"""Takes the number of rows so far."""


@dataclass(frozen=True)
class RowsRequest:
    """Rows that a stage needs of a file.

    Attributes:
        kind: ``sft`` or ``rl``.
        rows: How many.
        config: The task, and how episodes are played that are read off the answers of a ``data.json``.
    """

    kind: str
    rows: int
    config: TaskConfig


def import_rows(
    path: str | Path, out: Path, request: RowsRequest, progress: Progress | None = None
) -> Origin:
    """Write the rows that a stage needs of a file; a file that is refused leaves none behind.

    Args:
        path: A ``.parquet`` file of our schema, or an authors' ``.json``.
        out: The parquet file of the stage.
        request: What the stage needs.
        progress: Takes the number of rows written so far.

    Raises:
        SftrlError: naming the file, the row or record, the column, what was found and expected.
    """
    path = Path(path)
    checked = _Checked(path, request)
    written = write_rows(out, checked.tables(), progress=progress)
    report = checked.report
    return Origin(
        str(path), file_digest(path), report.rows, written, dict(checked.templates), report.own_prompts,
        checked.pictures_digest(),
    )  # fmt: skip


class _Checked:
    """The rows of a file, checked while they are read for the first time."""

    def __init__(self, path: Path, request: RowsRequest) -> None:
        self.path, self.request = path, request
        self.report = FileReport(path)
        self.templates: Counter[str] = Counter()
        self._pictures: set[str] = set()
        self._unit = "record" if path.suffix.lower() == ".json" else "row"

    def tables(self) -> Iterator[pa.Table]:
        """As many rows as were asked for, in tables."""
        left = self.request.rows
        for lap in itertools.count():
            for table in self._read():
                part = table.slice(0, left)
                # Further laps repeat rows that have been checked.
                if lap == 0:
                    self._check(part)
                left -= part.num_rows
                yield part
                if left == 0:
                    return
            if self.report.rows == 0:
                raise SftrlError(f"{self.path}: no rows; expected at least one.")

    def _read(self) -> Iterator[pa.Table]:
        if self._unit == "row":
            return _parquet_tables(self.path)
        if self.request.kind == "rl":
            raise SftrlError(
                f"{self.path}: answers, which RL does not train on; expected a .parquet file of prompts with "
                "the facts of their episodes, as `sftrl data rl` builds."
            )
        return imported_tables(
            self.path,
            images=self.request.config.modality == "image",
            image_folder=self.path.parent.resolve(),
            config=self.request.config,
        )

    def _check(self, table: pa.Table) -> None:
        """Check the rows of a table, whose numbers go on from those checked before."""
        for number, row in enumerate(table.to_pylist(), self.report.rows):
            try:
                check_row(row, self.report)
                self._check_request(row)
            except SftrlError as error:
                raise SftrlError(f"{self.path}: {self._unit} {number}: {error}") from None

    def _check_request(self, row: dict[str, Any]) -> None:
        """Check that the stage can train on a valid row."""
        request = self.request
        facts = parse_facts(row["extra_info"]["facts"], "column 'extra_info.facts'")
        paths = [picture["path"] for picture in row.get("images") or () if picture["path"]]
        if request.kind == "sft" and not row["messages"]:
            raise SftrlError(
                "column 'messages' is empty, as in prompts for RL; expected the dialogue of a row of SFT."
            )
        if request.kind == "rl" and not facts:
            raise SftrlError("column 'extra_info.facts' is empty; expected the facts of an episode to play.")
        if request.kind == "rl" and paths:
            raise SftrlError(
                f"column 'images' has the path {paths[0]}; expected none: RL draws pictures from the facts."
            )
        expected = {"task": request.config.kind, "modality": request.config.modality}
        for name, value in expected.items():
            if facts and facts.get(name, "text") != value:
                raise SftrlError(f"the fact {name!r} is {facts.get(name, 'text')!r}, expected {value!r}.")
        if facts:
            self.templates[str(facts.get("template", "default"))] += 1
        elif row["messages"]:
            self._check_answer(row["messages"])
        for path in paths:
            stat = Path(path).stat()
            self._pictures.add(f"{path} {stat.st_size} {stat.st_mtime_ns}")

    def _check_answer(self, messages: list[dict[str, str]]) -> None:
        """Grade the last answer of a row without facts by the instance that it names, if it names one."""
        config = TaskConfig(kind=self.request.config.kind, profile=self.request.config.profile)
        facts = find_rows(config.kind).read_answer(messages[-1]["content"], config)
        if facts:
            expect_correct(make_episode(facts), messages[-1]["content"], len(messages) - 1)

    def pictures_digest(self) -> str:
        """Digest of the names, sizes and times of the picture files; empty if there are none."""
        text = "\n".join(sorted(self._pictures))
        return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _parquet_tables(path: Path) -> Iterator[pa.Table]:
    schema = read_schema(path)
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(IMAGE_ROW_GROUP if "images" in schema.names else ROW_GROUP):
            yield with_loss_mask(pa.Table.from_batches([batch]).select(schema.names))
