"""What ``sftrl data`` does: build a file of one kind, import the authors', or make a city to walk in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from data_prep.authors import import_authors
from data_prep.build_routes import ROUTE_KINDS, build_routes
from data_prep.general_points import reasoned_rows, rl_rows, sft_rows, suboptimal_rows
from data_prep.given_hands import given_hand_rows
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
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.errors import Registry, SftrlError, unknown_name

BUILDERS: Registry[Callable[..., Iterator[pa.Table]]] = Registry("kind of rows")
"""Kind of rows of the card game to its builder."""

BUILDERS.add("rl", rl_rows)
BUILDERS.add("sft", sft_rows)
BUILDERS.add("reasoned", reasoned_rows)
BUILDERS.add("suboptimal", suboptimal_rows)

ATTEMPTS = 5
"""How many attempts of a hand are graded if nothing else is asked for."""

TASKS = ("general_points", "virl")

_OF_ROUTES = ("routes", "away", "holdout", "style", "missing_panorama", "skip_bad")


def build_file(request: Request, tell: Tell = lambda text: None) -> int:
    """Build or import one parquet file, make a city, or convert a map of panoramas.

    Args:
        request: What is asked for.
        tell: Takes a sentence about each thing that was left out.

    Returns:
        How many rows were written, or routes of a city, or places of a map.

    Raises:
        SftrlError: for an unknown kind, task, split, draw, profile, template or look, or a missing file.
    """
    task = getattr(request, "task", "general_points")
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if task == "virl" or request.kind in ROUTE_KINDS:
        return build_routes(request, tell)
    modality = getattr(request, "modality", "text")
    embed = getattr(request, "embed_images", False)
    for name in _OF_ROUTES:
        if getattr(request, name, None):
            raise SftrlError(f"--{name.replace('_', '-')} is about routes; expected --task virl beside it.")
    fields = look_fields(getattr(request, "image_size", None), getattr(request, "look", None))
    look = as_look(fields) if fields else None
    attempts = ATTEMPTS if request.max_attempts is None else request.max_attempts
    settings = PlaySettings(attempts, request.profile, request.template, modality, look=look)
    if request.kind == IMPORT:
        with counted_rows() as progress:
            return import_authors(authors_file(request), request.out, settings=settings, progress=progress)
    hands: dict[str, Any] = {key: getattr(request, key) for key in ("draw", "suits") if getattr(request, key)}
    if request.kind == GIVEN:
        source = Source("id", seed=request.seed, train=False, settings=settings, hands=hands)
        return write_rows(request.out, given_hand_rows(given_file(request), request.split, source))
    if request.kind not in BUILDERS:
        raise unknown_name("kind of rows", request.kind, [*BUILDERS, IMPORT, GIVEN, *ROUTE_KINDS])
    names = [name.strip() for name in request.split.split(",")]
    source = Source(names, seed=request.seed, train=not request.eval, settings=settings, hands=hands)
    tables = BUILDERS[request.kind](source, request.rows, images="embed" if embed else "draw")
    return write_rows(request.out, tables, IMAGE_SCHEMA if embed else None)
