"""What ``sftrl data`` does: build a file of one kind, import the authors', or make a city to walk in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_prep.authors import import_authors
from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.schema import IMAGE_SCHEMA
from data_prep.sources import Source
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_sources import HOLDOUT, RouteSource, read_route_set
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.envs.virl.episode import PlaySettings as RouteSettings
from sftrl_ext.envs.virl.verifier import MODALITIES
from sftrl_ext.errors import Registry, SftrlError, unknown_name

BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows of the card game to its builder."""

BUILDERS.add("rl", rl_rows)
BUILDERS.add("sft", sft_rows)
BUILDERS.add("suboptimal", suboptimal_rows)

ROUTE_BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows of routes to its builder."""

ROUTE_BUILDERS.add("rl", route_rl_rows)
ROUTE_BUILDERS.add("sft", route_sft_rows)
ROUTE_BUILDERS.add("suboptimal", route_suboptimal_rows)

IMPORT = "import"
"""The kind that reads a file instead of building rows."""

CITY = "virl-city"
"""The kind that makes a synthetic city: a folder of routes, and of street views with modality "image"."""

ATTEMPTS = {"general_points": 5, "virl": 2}
"""Task to how many attempts are graded if nothing else is asked for."""


class Request(Protocol):
    """What is asked for; the parsed arguments of the command line are one.

    ``modality``, ``image_size``, ``look`` and ``embed_images`` may be absent, which asks for text; so may
    ``task``, which asks for the card game, and what is of routes only.
    """

    kind: str
    """A kind of `BUILDERS`, "import" or "virl-city"."""
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
    style: str | None
    """Style of a city."""
    source: Path | None
    """The authors' file, for an import."""
    out: Path
    """The parquet file to write."""


def build_file(request: Request) -> int:
    """Build or import one parquet file, or make a city.

    Returns:
        How many rows were written, or routes.

    Raises:
        SftrlError: for an unknown kind, task, split, draw, profile, template or look, or a missing file.
    """
    modality = getattr(request, "modality", "text")
    embed = getattr(request, "embed_images", False)
    task = getattr(request, "task", "general_points")
    if task not in ATTEMPTS:
        raise unknown_name("task", task, ATTEMPTS)
    if request.kind == CITY:
        return _build_city(request, modality)
    if task == "virl":
        return _build_routes(request, modality, embed)
    for name in ("routes", "away", "holdout", "style"):
        if getattr(request, name, None):
            raise SftrlError(f"--{name} is about routes; expected --task virl beside it.")
    fields = look_fields(getattr(request, "image_size", None), getattr(request, "look", None))
    look = as_look(fields) if fields else None
    attempts = ATTEMPTS[task] if request.max_attempts is None else request.max_attempts
    settings = PlaySettings(attempts, request.profile, request.template, modality, look=look)
    if request.kind == IMPORT:
        if modality != "text" or embed:
            raise SftrlError("kind 'import' gives text rows; expected neither images nor --embed-images.")
        if request.source is None:
            raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
        return import_authors(request.source, request.out, settings=settings)
    if request.kind not in BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*BUILDERS, IMPORT, CITY])
    hands: dict[str, Any] = {key: getattr(request, key) for key in ("draw", "suits") if getattr(request, key)}
    names = [name.strip() for name in request.split.split(",")]
    source = Source(names, seed=request.seed, train=not request.eval, settings=settings, hands=hands)
    tables = BUILDERS[request.kind](source, request.rows, images="embed" if embed else "draw")
    return write_rows(request.out, tables, IMAGE_SCHEMA if embed else None)


def _build_routes(request: Request, modality: str, embed: bool) -> int:
    """Build or import a file of routes."""
    for name in ("draw", "suits", "look"):
        if getattr(request, name, None):
            raise SftrlError(f"--{name} is about cards; expected nothing of it with --task virl.")
    if request.kind == IMPORT:
        if modality != "text" or embed:
            raise SftrlError("kind 'import' gives text rows; expected neither images nor --embed-images.")
        if request.source is None:
            raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
        return import_authors(request.source, request.out, task="virl")
    if request.kind not in ROUTE_BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*ROUTE_BUILDERS, IMPORT, CITY])
    routes, holdout = getattr(request, "routes", None), getattr(request, "holdout", None)
    if routes is None:
        raise SftrlError("task 'virl' needs routes: expected --routes route_infos.json, or a city's folder.")
    size = look_fields(getattr(request, "image_size", None), None)
    if size and size["width"] != size["height"]:
        raise SftrlError(f"image size is {request.image_size!r}; expected a square for task 'virl'.")
    home = read_route_set(routes)
    away = [read_route_set(path) for path in getattr(request, "away", None) or ()]
    views = next((found.street_views for found in (home, *away) if found.street_views), None)
    settings = RouteSettings(
        max_attempts=ATTEMPTS["virl"] if request.max_attempts is None else request.max_attempts,
        profile=request.profile,
        template=request.template,
        modality=modality,
        street_views=str(views) if modality == "image" and views else None,
        image_size=size.get("width"),
    )
    source = RouteSource(
        [home],
        away,
        [name.strip() for name in request.split.split(",")],
        seed=request.seed,
        train=not request.eval,
        settings=settings,
        holdout=HOLDOUT if holdout is None else holdout,
    )
    tables = ROUTE_BUILDERS[request.kind](source, request.rows, images="embed" if embed else "draw")
    return write_rows(request.out, tables, IMAGE_SCHEMA if embed else None)


def _build_city(request: Request, modality: str) -> int:
    """Make a synthetic city in the folder ``request.out``."""
    from sftrl_ext.envs.virl.city import build_city

    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    style = getattr(request, "style", None) or "brick"
    build_city(request.out, style, request.seed, request.rows, pictures=modality == "image")
    return request.rows


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
