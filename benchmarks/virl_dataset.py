"""A data set of routes of the authors' size, read and built: ``python benchmarks/virl_dataset.py``.

Makes 1000 routes and at least 6000 panoramas in the authors' formats (a quarter of the routes of each of
four synthetic cities, and all their panoramas, in one folder; not timed), then runs ``sftrl data`` on it in a
process of its own for each kind of rows: every route is read, every panorama that a route needs is decoded,
and all points become rows of parquet. Prints one JSON object with seconds and peak memory; exits with 1 if a
bound is missed.
"""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sftrl_ext.envs.virl.city import CITY_STYLES, build_city
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import load_routes, write_routes

ROUTES, CITIES, WIDTH, PANORAMAS = 1000, 4, 512, 6000
AT_MOST = {"seconds of all": 120.0, "MiB": 1024.0}


def make(folder: Path) -> int:
    """Write the data set.

    Returns:
        How many panoramas it has.
    """
    routes, places = [], {}
    views = folder / "street_views"
    views.mkdir(parents=True)
    for number, style in enumerate(list(CITY_STYLES)[:CITIES]):
        city = build_city(folder / style, style, number, ROUTES, width=WIDTH).parent
        here = PanoramaMap.load(city / "gps_pano_mapping.json").places
        assert not places.keys() & here.keys(), "two cities have a point in common"
        places |= here
        routes += load_routes(city / "route_infos.json").routes[::CITIES]
        for file in (city / "street_views").iterdir():
            file.replace(views / file.name)
        shutil.rmtree(city)
    write_routes(folder / "route_infos.json", [replace(r, index=i) for i, r in enumerate(routes)])
    (folder / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(places))
    return len(places)


def build(folder: Path, kind: str, rows: int) -> dict[str, float]:
    """Run the builder in a process of its own."""
    out = folder / f"{kind}.parquet"
    words = ["data", kind, "--task", "virl", "--modality", "image", "--routes", str(folder)]
    words += ["--split", "id,rule_ood", "--rows", str(rows), "--out", str(out)]
    script = (
        "import json,resource,sys;from sftrl_ext.cli import main;code=main(sys.argv[1:]);"
        "print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024));sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return {
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
        "peak MiB": round(float(done.stdout.splitlines()[-1])),
        "file MiB": round(out.stat().st_size / 2**20, 1),
    }


def main() -> int:
    """Make, measure, print, and compare with the bounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        panoramas = make(folder)
        size = sum(file.stat().st_size for file in (folder / "street_views").iterdir())
        kinds = {kind: build(folder, kind, rows) for kind, rows in (("rl", 2 * ROUTES), ("sft", 30_000))}
    report = {
        "routes": ROUTES,
        "panoramas": panoramas,
        "panorama pixels": [WIDTH, WIDTH // 2],
        "street views MiB": round(size / 2**20),
        "kinds": kinds,
        "at_most": AT_MOST,
        "own peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(report, indent=2))
    seconds = sum(kind["seconds"] for kind in kinds.values())
    late = seconds > AT_MOST["seconds of all"]
    big = any(kind["peak MiB"] > AT_MOST["MiB"] for kind in kinds.values())
    return int(late or big or panoramas < PANORAMAS)


if __name__ == "__main__":
    sys.exit(main())
