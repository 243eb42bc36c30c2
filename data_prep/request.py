"""What ``sftrl data`` is asked for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress, TextColumn

from sftrl_ext.errors import SftrlError

IMPORT = "import"
"""The kind that reads a file instead of building rows."""

GIVEN = "given"
"""The kind that makes an evaluation split of the hands or routes that a file lists."""

Tell = Callable[[str], None]
"""Takes a sentence for the user."""


class Request(Protocol):
    """What is asked for; the parsed arguments of the command line are one.

    ``modality``, ``image_size``, ``look`` and ``embed_images`` may be absent, which asks for text; so may
    ``task``, which asks for the card game, and what is of routes only.
    """

    kind: str
    """A kind of rows, "import", "given", "virl-city" or "panoramas"."""
    task: str
    """ "general_points" or "virl"."""
    split: str
    """Split name, or several with commas."""
    rows: int
    """How many; of a city, its routes."""
    seed: int
    eval: bool
    """Draw from the evaluation stream."""
    template: str
    max_attempts: int | None
    """None: as many as the task has."""
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
    routes: Path | None
    """Routes to walk: a file of them, or a city's folder."""
    away: Sequence[Path] | None
    """Routes of other cities, for the split ``visual_ood``."""
    holdout: float | None
    """Share of the routes that no training walks."""
    missing_panorama: str | None
    """``skip`` or ``error``: what a point between milestones without a panorama is; None: ``skip``."""
    skip_bad: bool
    """Leave out what is bad and tell of it, instead of an error."""
    style: str | None
    """Style of a city."""
    source: Path | None
    """The authors' file, for an import; a list, for "given"; the map of panoramas, for "panoramas"."""
    out: Path
    """The parquet file to write."""


def authors_file(request: Request) -> Path:
    """The file that an import reads.

    Raises:
        SftrlError: if none is named, or images are asked for.
    """
    if getattr(request, "modality", "text") != "text" or getattr(request, "embed_images", False):
        raise SftrlError("kind 'import' gives text rows; expected neither images nor --embed-images.")
    if request.source is None:
        raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
    return request.source


def given_file(request: Request) -> Path:
    """The list that an evaluation split is made of.

    Raises:
        SftrlError: if none is named, or pictures are to be embedded.
    """
    if getattr(request, "embed_images", False):
        raise SftrlError("kind 'given' gives rows without pictures; expected nothing of --embed-images.")
    if request.source is None:
        raise SftrlError("kind 'given' needs a list of hands or routes: expected --from hands.csv.")
    return request.source


@contextlib.contextmanager
def counted_rows() -> Iterator[Callable[[int], None]]:
    """Show in a terminal how many rows were read so far; the total is not known before the end."""
    with Progress(
        TextColumn("{task.completed:,.0f} rows"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows: bar.update(task, completed=rows)


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
