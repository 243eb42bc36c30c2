"""Origins: the files of a user's that rows of a run were read from, with digests of what they held."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json


@dataclass(frozen=True)
class Origin:
    """The file that rows were read from, as the run keeps it.

    Attributes:
        file: Its path.
        sha256: Digest of its content.
        rows: Rows that were read of it.
        written: Rows that the stage has; more than ``rows`` where the file is repeated.
        templates: Prompt templates of the rows, with their numbers.
        own_prompts: Rows whose prompt is no template's of ours.
        pictures: Digest of the names, sizes and times of the picture files that rows point to; empty if none.
    """

    file: str
    sha256: str
    rows: int
    written: int
    templates: dict[str, int] = field(default_factory=dict)
    own_prompts: int = 0
    pictures: str = ""


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        SftrlError: if there is no such file.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise SftrlError(f"{path}: cannot be read ({error.strerror}).") from None


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of the files directly in a folder."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(child for child in path.iterdir() if child.is_file())
    text = "".join(f"{child.name} {file_digest(child)}\n" for child in files)
    return hashlib.sha256(text.encode()).hexdigest()


def write_origins(path: Path, origins: Mapping[str, Origin]) -> None:
    """Write the origin of each parquet file, by the name of the file; nothing if there is none."""
    if origins:
        write_json(path, {name: asdict(origin) for name, origin in sorted(origins.items())})


def read_origins(path: Path) -> dict[str, Origin]:
    """Read what `write_origins` wrote; a run without origins has no file."""
    if not path.is_file():
        return {}
    return {name: Origin(**fields) for name, fields in read_json(path).items()}


def origins_text(origins: Mapping[str, Origin]) -> str:
    """A section of the dataset card; empty if no rows came from a file."""
    if not origins:
        return ""
    lines = [
        "## Rows from files",
        "",
        "Rows that were read from a file: `read` of it, `written` after repeating it where it had too few.",
        "Rows with `own prompts` keep theirs, which no template of this run writes.",
        "",
        "| file | from | SHA-256 | read | written | own prompts |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name, origin in sorted(origins.items()):
        lines.append(
            f"| {name} | `{origin.file}` | `{origin.sha256[:16]}` | {origin.rows:,} | {origin.written:,} "
            f"| {origin.own_prompts:,} |"
        )
    return "\n".join(lines) + "\n"
