"""Check routes before rows are made of them: that each can be walked, and that its pictures can be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from data_prep.virl_sources import RouteSet, RouteSource
from sftrl_ext.envs.virl.street_view import StreetViews
from sftrl_ext.errors import SftrlError


def check_routes(source: RouteSource, *, skip_bad: bool = False) -> tuple[RouteSource, list[str]]:
    """Lay the track of every route; with images, read every panorama that one of them needs.

    Args:
        source: Routes, and how they are walked.
        skip_bad: Leave bad routes out instead of an error.

    Returns:
        The source with the good routes only, and one sentence for each route that is left out, those that
        `read_route_set` left out among them, and for the points of each set that have no panorama.

    Raises:
        SftrlError: for the first bad route, unless they are skipped; if a set has no good one.
    """
    home, away = (
        [_check_set(routes, source, skip_bad) for routes in sets] for sets in (source.home, source.away)
    )
    problems = [problem for _, skipped in (*home, *away) for problem in skipped]
    checked = replace(source, home=[routes for routes, _ in home], away=[routes for routes, _ in away])
    return checked, problems


def _check_set(routes: RouteSet, source: RouteSource, skip_bad: bool) -> tuple[RouteSet, list[str]]:
    settings = source.settings_of(routes)
    good, problems, needed = [], list(routes.problems), []
    for route in routes.routes:
        try:
            track = source.track(routes, route)
        except SftrlError as error:
            problem = f"{routes.name}: {error}"
            if not skip_bad:
                raise SftrlError(problem) from None
            problems.append(problem)
            continue
        good.append(route)
        needed.append({point.pano_id for point in track.waypoints if point.pano_id is not None})
    if settings.street_views is not None:
        wanted = sorted(set().union(*needed))
        broken = _broken(StreetViews(settings.street_views), wanted)
        if broken and not skip_bad:
            raise SftrlError(next(iter(broken.values())))
        complete = []
        for route, ids in zip(good, needed, strict=True):
            lost = sorted(ids & broken.keys())
            problems += [f"{routes.name}: route {route.index}: {broken[name]}" for name in lost]
            if not lost:
                complete.append(route)
        good = complete
    skipped = sum(routes.skipped.get(route.index, 0) for route in good)
    if skipped:
        problems.append(f"{routes.name}: {skipped} points between milestones, which have no panorama.")
    if routes.routes and not good:
        raise SftrlError(f"{routes.name}: no good route; the first problem: {problems[0]}")
    return replace(routes, routes=good), problems


def _broken(views: StreetViews, pano_ids: Sequence[str]) -> dict[str, str]:
    """Broken panoramas with the reason. Decoding releases the interpreter, so threads help."""

    def check(pano_id: str) -> str | None:
        try:
            views.check(pano_id)
        except SftrlError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = zip(pano_ids, pool.map(check, pano_ids), strict=True)
        return {pano_id: reason for pano_id, reason in results if reason is not None}
