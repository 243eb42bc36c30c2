"""What ``sftrl data`` does for routes: rows, cities to walk in, maps of panoramas in another format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from data_prep.authors import import_authors
from data_prep.given_routes import given_route_rows
from data_prep.request import (
    GIVEN,
    IMPORT,
    Request,
    Tell,
    authors_file,
    counted_rows,
    given_file,
    look_fields,
)
from data_prep.schema import IMAGE_SCHEMA
from data_prep.virl import route_rl_rows, route_sft_rows, route_suboptimal_rows
from data_prep.virl_check import check_routes
from data_prep.virl_sources import HOLDOUT, RouteSource, read_route_sets
from data_prep.writer import write_rows
from sftrl_ext.envs.virl.episode import PlaySettings
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.verifier import MODALITIES
from sftrl_ext.errors import Registry, SftrlError, unknown_name

ROUTE_BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows of routes to its builder."""

ROUTE_BUILDERS.add("rl", route_rl_rows)
ROUTE_BUILDERS.add("sft", route_sft_rows)
ROUTE_BUILDERS.add("suboptimal", route_suboptimal_rows)

CITY = "virl-city"
"""The kind that makes a synthetic city: a folder of routes, and of street views with modality "image"."""

PANORAMAS = "panoramas"
"""The kind that writes a map of panoramas as parquet or JSON."""

ROUTE_KINDS = (CITY, PANORAMAS)
"""Kinds that need no rows of a task."""

ATTEMPTS = 2
"""How many attempts at a point are graded if nothing else is asked for."""


def build_routes(request: Request, tell: Tell) -> int:
    """Build or import a file of routes, make a city, or convert a map of panoramas.

    Returns:
        How many rows, routes or places were written.

    Raises:
        SftrlError: for an unknown name, or a missing or malformed file.
    """
    if request.kind == CITY:
        return _build_city(request)
    if request.kind == PANORAMAS:
        return _convert_map(request)
    modality = getattr(request, "modality", "text")
    embed = getattr(request, "embed_images", False)
    for name in ("draw", "suits", "look"):
        if getattr(request, name, None):
            raise SftrlError(f"--{name} is about cards; expected nothing of it with --task virl.")
    if request.kind == IMPORT:
        with counted_rows() as progress:
            return import_authors(authors_file(request), request.out, task="virl", progress=progress)
    if request.kind == "reasoned":
        raise SftrlError(
            "kind 'reasoned' is about cards: an answer of task 'virl' names what is seen and the instruction "
            "before its action as it is. Expected kind 'sft'."
        )
    if request.kind == GIVEN:
        path = given_file(request)
        return write_rows(
            request.out, given_route_rows(path, request.split, _source(request, modality, tell))
        )
    if request.kind not in ROUTE_BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*ROUTE_BUILDERS, IMPORT, GIVEN, *ROUTE_KINDS])
    source = _source(request, modality, tell)
    tables = ROUTE_BUILDERS[request.kind](source, request.rows, images="embed" if embed else "draw")
    return write_rows(request.out, tables, IMAGE_SCHEMA if embed else None)


def _source(request: Request, modality: str, tell: Tell) -> RouteSource:
    """The walks asked for, over routes that were checked."""
    routes, holdout = getattr(request, "routes", None), getattr(request, "holdout", None)
    if routes is None:
        raise SftrlError("task 'virl' needs routes: expected --routes route_infos.json, or a city's folder.")
    size = look_fields(getattr(request, "image_size", None), None)
    if size and size["width"] != size["height"]:
        raise SftrlError(f"image size is {request.image_size!r}; expected a square for task 'virl'.")
    skip_bad = bool(getattr(request, "skip_bad", False))
    home = read_route_sets(routes, skip_bad=skip_bad)
    folders = getattr(request, "away", None) or ()
    away = [found for path in folders for found in read_route_sets(path, skip_bad=skip_bad)]
    views = next((found.street_views for found in (*home, *away) if found.street_views), None)
    settings = PlaySettings(
        max_attempts=ATTEMPTS if request.max_attempts is None else request.max_attempts,
        profile=request.profile,
        template=request.template,
        modality=modality,
        street_views=str(views) if modality == "image" and views else None,
        image_size=size.get("width"),
    )
    source = RouteSource(
        home,
        away,
        [name.strip() for name in request.split.split(",")],
        seed=request.seed,
        train=not request.eval,
        settings=settings,
        holdout=HOLDOUT if holdout is None else holdout,
        missing_panorama=getattr(request, "missing_panorama", None) or "skip",
    )
    checked, problems = check_routes(source, skip_bad=skip_bad)
    for problem in problems:
        tell(f"left out: {problem}")
    return checked


def _build_city(request: Request) -> int:
    """Make a synthetic city in the folder ``request.out``."""
    from sftrl_ext.envs.virl.city import build_city

    modality = getattr(request, "modality", "text")
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    style = getattr(request, "style", None) or "brick"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("draw panoramas", total=None, visible=modality == "image")
        build_city(
            request.out,
            style,
            request.seed,
            request.rows,
            pictures=modality == "image",
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return request.rows


def _convert_map(request: Request) -> int:
    """Write a map of panoramas in the format that the ending of ``request.out`` says."""
    if request.source is None:
        raise SftrlError("kind 'panoramas' needs a map of panoramas: expected --from gps_pano_mapping.pkl.")
    found = PanoramaMap.load(request.source)
    found.save(request.out)
    return len(found)
