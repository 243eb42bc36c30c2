"""What ``sftrl data`` does: build a file of one kind, or import the authors'."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_prep.authors import import_authors
from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.schema import IMAGE_SCHEMA
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.errors import Registry, SftrlError, unknown_name

BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows to its builder."""

BUILDERS.add("rl", rl_rows)
BUILDERS.add("sft", sft_rows)
BUILDERS.add("suboptimal", suboptimal_rows)

IMPORT = "import"
"""The kind that reads a file instead of building rows."""


class Request(Protocol):
    """What is asked for; the parsed arguments of the command line are one.

    ``modality``, ``image_size``, ``look`` and ``embed_images`` may be absent, which asks for text.
    """

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
    modality: str
    """ "text" or "image"."""
    image_size: str | None
    """Width and height of images: ``1200x1200``."""
    look: str | None
    """Fields of `Look` to change: ``table=blue,deck=plain``."""
    embed_images: bool
    """Write the pictures into the file."""
    source: Path | None
    """The authors' file, for an import."""
    out: Path
    """The parquet file to write."""


def build_file(request: Request) -> int:
    """Build or import one parquet file.

    Returns:
        How many rows were written.

    Raises:
        SftrlError: for an unknown kind, split, draw, profile, template or look, or a missing file.
    """
    modality = getattr(request, "modality", "text")
    embed = getattr(request, "embed_images", False)
    fields = look_fields(getattr(request, "image_size", None), getattr(request, "look", None))
    look = as_look(fields) if fields else None
    settings = PlaySettings(request.max_attempts, request.profile, request.template, modality, look=look)
    if request.kind == IMPORT:
        if modality != "text" or embed:
            raise SftrlError("kind 'import' gives text rows; expected neither images nor --embed-images.")
        if request.source is None:
            raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
        return import_authors(request.source, request.out, settings=settings)
    if request.kind not in BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*BUILDERS, IMPORT])
    hands: dict[str, Any] = {key: getattr(request, key) for key in ("draw", "suits") if getattr(request, key)}
    names = [name.strip() for name in request.split.split(",")]
    source = Source(names, seed=request.seed, train=not request.eval, settings=settings, hands=hands)
    tables = BUILDERS[request.kind](source, request.rows, images="embed" if embed else "draw")
    return write_rows(request.out, tables, IMAGE_SCHEMA if embed else None)


def look_fields(size: str | None, changes: str | None) -> dict[str, Any]:
    """Fields of a look as the command line writes them.

    Args:
        size: ``<width>x<height>``, in pixels.
        changes: ``<field>=<value>``, several with commas.

    Raises:
        SftrlError: if a text has another form.
    """
    fields: dict[str, Any] = {}
    if size:
        match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", size.strip())
        if match is None:
            raise SftrlError(f"image size is {size!r}, expected <width>x<height>, such as 1200x1200.")
        fields |= {"width": int(match[1]), "height": int(match[2])}
    for change in changes.split(",") if changes else ():
        name, sign, value = (word.strip() for word in change.partition("="))
        if not (name and sign and value):
            raise SftrlError(f"look has {change!r}, expected <field>=<value>, such as table=blue,deck=plain.")
        fields[name] = int(value) if value.isascii() and value.isdigit() else value
    return fields
