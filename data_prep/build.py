"""What ``sftrl data`` does: build a file of one kind, or import the authors'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_prep.authors import import_authors
from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.errors import Registry, SftrlError, unknown_name

BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows to its builder."""

BUILDERS.add("rl", rl_rows)
BUILDERS.add("sft", sft_rows)
BUILDERS.add("suboptimal", suboptimal_rows)

IMPORT = "import"
"""The kind that reads a file instead of building rows."""


class Request(Protocol):
    """What is asked for; the parsed arguments of the command line are one."""

    kind: str
    """A kind of `BUILDERS`, or "import"."""
    split: str
    """Split name, or several with commas."""
    rows: int
    seed: int
    eval: bool
    """Draw from the evaluation stream."""
    template: str
    max_attempts: int
    profile: str
    draw: str | None
    suits: str | None
    source: Path | None
    """The authors' file, for an import."""
    out: Path
    """The parquet file to write."""


def build_file(request: Request) -> int:
    """Build or import one parquet file.

    Returns:
        How many rows were written.

    Raises:
        SftrlError: for an unknown kind, split, draw, profile or template, or a missing file.
    """
    settings = PlaySettings(request.max_attempts, request.profile, request.template)
    if request.kind == IMPORT:
        if request.source is None:
            raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
        return import_authors(request.source, request.out, settings=settings)
    if request.kind not in BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*BUILDERS, IMPORT])
    hands: dict[str, Any] = {key: getattr(request, key) for key in ("draw", "suits") if getattr(request, key)}
    names = [name.strip() for name in request.split.split(",")]
    source = Source(names, seed=request.seed, train=not request.eval, settings=settings, hands=hands)
    return write_rows(request.out, BUILDERS[request.kind](source, request.rows))
