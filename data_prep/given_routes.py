"""An evaluation split of given routes: numbers of routes in a file of them, or a route file of its own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.given_files import Record, is_route_list, read_records, split_of_set, whole_number
from data_prep.schema import data_source
from data_prep.task_rows import prompt_table
from data_prep.virl_check import check_routes
from data_prep.virl_sources import RouteSet, RouteSource, read_route_set
from data_prep.virl_splits import ROUTE_SPLITS, TASK_OF, RouteSplit
from sftrl_ext.envs.virl import TASK
from sftrl_ext.envs.virl.episode import make_facts
from sftrl_ext.envs.virl.routes import Route
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json

FIELDS = ("route", "city", "rail_seed")
"""Fields of a route in a list."""


def given_route_rows(
    path: Path, name: str, source: RouteSource, *, limit: int | None = None
) -> Iterator[pa.Table]:
    """Prompts at the start of given routes, in their order.

    Args:
        path: A list (see `data_prep.given_files.read_records`) with the fields ``route``, the route's index
            in its file, counted from 0; ``city``, which of the other cities, counted from 0; and
            ``rail_seed``, by default drawn. Of a route file or a city's folder every route is taken.
        name: Name of the set, which becomes a split.
        source: The run's routes and how they are walked, and the seed of the rails; its splits are not used.
        limit: Take only so many.

    Raises:
        SftrlError: naming file, row and field, what was found and expected.
    """
    split = ROUTE_SPLITS[split_of_set(name, ROUTE_SPLITS)]
    rng = np.random.default_rng([source.seed, zlib.crc32(name.encode())])
    walks: list[dict[str, Any]] = []
    if path.is_dir() or _is_route_file(path):
        checked, _ = check_routes(replace(source, home=[read_route_set(path)], away=()))
        [routes] = checked.home
        for route in routes.routes[:limit]:
            walks.append(_facts(checked, split, routes, route, int(rng.integers(2**31))))
    else:
        for record in read_records(path, "route", FIELDS)[:limit]:
            # Drawn for every row, so a seed that the list names does not change those of other rows.
            seed = int(rng.integers(2**31))
            walks.append(_listed(record, source, split, seed))
    yield prompt_table(TASK, data_source(TASK_OF, source.settings.modality, name), name, source.seed, walks)


def _listed(record: Record, source: RouteSource, split: RouteSplit, seed: int) -> dict[str, Any]:
    """The facts of one route of a list."""
    facts = record.fields.get("facts")
    if facts is not None:
        if facts.get("task") != "virl" or facts.get("action_space") != split.action_space:
            raise SftrlError(
                f"{record.where}: facts of task {facts.get('task')!r} with action_space "
                f"{facts.get('action_space')!r}; expected 'virl' with {split.action_space!r}."
            )
        return dict(facts)
    sets = source.away if split.away else source.home[:1]
    if not sets:
        raise SftrlError(
            f"{record.where}: expected routes of other cities (task.routes.away); none are given."
        )
    city = whole_number(record, "city", 0 if len(sets) == 1 else None)
    if city >= len(sets):
        raise SftrlError(f"{record.where}: field 'city' is {city}, expected 0 to {len(sets) - 1}.")
    routes = sets[city]
    route = _route(record, routes, whole_number(record, "route"))
    return _facts(source, split, routes, route, whole_number(record, "rail_seed", seed))


def _route(record: Record, routes: RouteSet, index: int) -> Route:
    for route in routes.routes:
        if route.index == index:
            return route
    last = max((route.index for route in routes.routes), default=-1)
    raise SftrlError(
        f"{record.where}: field 'route' is {index}; expected the index of a good route in {routes.name}, "
        f"0 to {last}."
    )


def _facts(
    source: RouteSource, split: RouteSplit, routes: RouteSet, route: Route, rail_seed: int
) -> dict[str, Any]:
    settings = replace(source.settings_of(routes), action_space=split.action_space)
    return make_facts(source.track(routes, route), settings, rail_seed)


def _is_route_file(path: Path) -> bool:
    """True if a JSON file has the authors' form of a file of routes."""
    return path.suffix.lower() == ".json" and path.is_file() and is_route_list(read_json(path))
