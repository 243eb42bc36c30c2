"""Map from points to panorama ids, with a search for the nearest one.

The authors' file is ``gps_pano_mapping.pkl``, a pickled dict ``{(lat, lng): id}``; it is read without running
it (`plain_pickle`). ``PanoramaMap.load("map.pkl").save("map.parquet")`` converts it; JSON is
``[[lat, lng, id], ...]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sftrl_ext.envs.virl.geo import EARTH_M, LatLng, great_circle_m, read_point, shown
from sftrl_ext.envs.virl.plain_pickle import load_plain
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import parquet_errors, read_json, replacing, write_text

WITHIN_M = 20.0
"""Greatest distance of a panorama that stands for a point, in metres."""

ENDINGS = (".pkl", ".pickle", ".json", ".parquet")
"""Kinds of files a map can be read from."""

_COLUMNS = ("lat", "lng", "pano_id")
_FORBIDDEN = frozenset("/\\\0")
_LONGEST_ID = 200


class PanoramaMap:
    """Panoramas by the point where they were taken.

    Args:
        places: Point to panorama id, or pairs of the two; of pairs with one point the last counts.
        where: Where they come from, for errors.

    Raises:
        SftrlError: if a point is none, or an id is no plain file name.
    """

    def __init__(
        self, places: Mapping[LatLng, str] | Iterable[tuple[Any, Any]], where: str = "panorama map"
    ) -> None:
        self.where = where
        self._ids: dict[LatLng, str] = {}
        pairs = places.items() if isinstance(places, Mapping) else places
        for number, (point, pano_id) in enumerate(pairs):
            location = read_point(point, f"{where}: place {number}: the point")
            self._ids[location] = check_pano_id(pano_id, f"{where}: place {number} {location}")
        self._points = np.array(list(self._ids), dtype=float).reshape(-1, 2)
        # In the order of latitude; of equal ones the first in the file comes first.
        self._order = np.argsort(self._points[:, 0], kind="stable")
        self._latitudes = self._points[self._order, 0]

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PanoramaMap) and self._ids == other._ids

    __hash__ = None  # type: ignore[assignment]

    @property
    def places(self) -> dict[LatLng, str]:
        """Point to panorama id, in the order of the file."""
        return dict(self._ids)

    def nearest(self, point: LatLng, within_m: float = WITHIN_M) -> tuple[LatLng, str] | None:
        """The panorama at a point, or else the nearest one by great circle that is less than a distance away.

        Args:
            point: Latitude and longitude.
            within_m: The distance in metres.

        Returns:
            Where it was taken and its id; None if there is none. Of equally near ones, the first in the file.
        """
        if point in self._ids:
            return point, self._ids[point]
        # No point is nearer than its difference in latitude.
        reach = np.degrees(within_m / EARTH_M) + 1e-9
        low, high = np.searchsorted(self._latitudes, (point[0] - reach, point[0] + reach))
        if low == high:
            return None
        # In the order of the file again: argmin takes the first of equal distances.
        rows = np.sort(self._order[low:high])
        metres = great_circle_m(point, self._points[rows])
        best = int(np.argmin(metres))
        if metres[best] >= within_m:
            return None
        lat, lng = self._points[rows[best]].tolist()
        return (lat, lng), self._ids[lat, lng]

    @classmethod
    def load(cls, path: str | Path) -> PanoramaMap:
        """Read a map from a pickle, a JSON or a parquet file.

        Raises:
            SftrlError: naming the file, what was found and what was expected; a pickle that holds anything
                but plain data is refused.
        """
        path = Path(path)
        if path.suffix not in ENDINGS:
            raise SftrlError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}.")
        if not path.is_file():
            raise SftrlError(f"{path}: no such file.")
        if path.suffix == ".parquet":
            return cls(_read_parquet(path), str(path))
        if path.suffix == ".json":
            return cls(_triples(read_json(path), path), str(path))
        data = load_plain(path.read_bytes(), str(path))
        if not isinstance(data, dict):
            raise SftrlError(
                f"{path}: expected a dict {{(lat, lng): panorama id}}, found {type(data).__name__}."
            )
        return cls(data, str(path))

    def save(self, path: str | Path) -> None:
        """Write the map as JSON or parquet.

        Raises:
            SftrlError: if the file's ending says neither.
        """
        path = Path(path)
        triples = [[lat, lng, pano_id] for (lat, lng), pano_id in self._ids.items()]
        if path.suffix == ".json":
            write_text(path, json.dumps(triples, ensure_ascii=False) + "\n")
        elif path.suffix == ".parquet":
            _write_parquet(path, triples)
        else:
            raise SftrlError(f"{path}: a map is written as .json or .parquet, found {path.suffix!r}.")


def check_pano_id(value: object, where: str) -> str:
    """A panorama id, which has to be a plain file name.

    Raises:
        SftrlError: if it is not.
    """
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _LONGEST_ID
        or value in (".", "..")
        or _FORBIDDEN & set(value)
    ):
        raise SftrlError(f"{where} has the panorama id {shown(value)}; expected a plain file name.")
    return value


def _triples(data: Any, path: Path) -> list[tuple[Any, Any]]:
    if not isinstance(data, list):
        raise SftrlError(f"{path}: expected a list of [lat, lng, panorama id], found {type(data).__name__}.")
    pairs = []
    for number, item in enumerate(data):
        if not isinstance(item, list) or len(item) != 3:
            raise SftrlError(f"{path}: place {number} is {shown(item)}; expected [lat, lng, panorama id].")
        pairs.append((item[:2], item[2]))
    return pairs


def _read_parquet(path: Path) -> list[tuple[Any, Any]]:
    import pyarrow.parquet as pq

    with parquet_errors(path):
        table = pq.read_table(path)
    for name in _COLUMNS:
        if name not in table.column_names:
            raise SftrlError(
                f"{path}: column {name!r} is missing; found {', '.join(table.column_names) or 'none'}."
            )
    lat, lng, ids = (table.column(name).to_pylist() for name in _COLUMNS)
    return list(zip(zip(lat, lng, strict=True), ids, strict=True))


def _write_parquet(path: Path, triples: list[list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(zip(*triples, strict=True)) or [(), (), ()]
    kinds = (pa.float64(), pa.float64(), pa.string())
    table = pa.table(
        {name: pa.array(column, kind) for name, column, kind in zip(_COLUMNS, columns, kinds, strict=True)}
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
