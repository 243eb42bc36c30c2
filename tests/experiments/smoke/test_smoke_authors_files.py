"""Both recipes of routes from data to report at smoke on the authors' folders, with no key but the paths."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout
from tests.authors_files import CITIES, write_city, write_mini_benchmark

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("VIRL_routes")
    return write_city(root / "nyc_1k_routes", "New York", 24), write_mini_benchmark(root / "VLN_mini")


def smoke(recipe, run_dir, *words):
    command = [sys.executable, "-m", "sftrl_ext.cli", "run", recipe, "--scale", "smoke"]
    command += ["--run-dir", str(run_dir), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    layout = RunLayout(run_dir)
    assert all(stage["status"] == "done" for stage in read_json(layout.state)["stages"])
    assert all(record["errors"] == 0 for record in read_jsonl(layout.records))
    return layout


def test_routes_in_words(folders, tmp_path):
    layout = smoke("fig6_virl_l", tmp_path / "run", f"task.routes.home.path={folders[0]}")
    text = (layout.report / "report.md").read_text()
    assert "synthetic cities" not in text and "80.8" in text and "91.8" in text
    assert "points between milestones, which have no panorama" in layout.log("data").read_text()


def test_routes_in_street_views_and_the_mini_benchmark(folders, tmp_path):
    home, away = folders
    paths = [f"task.routes.home.path={home}", f"task.routes.away=[{{path: {away}}}]"]
    layout = smoke("fig7_virl_vl", tmp_path / "run", *paths)
    records = [record for record in read_jsonl(layout.records) if record["split"] == "visual_ood"]
    assert len({(record["arm"], record["step"]) for record in records}) == len(records) >= 4
    for record in records:
        assert record["episodes"] == 18 and {city["episodes"] for city in record["by_city"].values()} == {2}
    text = (layout.report / "report.md").read_text()
    assert "synthetic cities" not in text and "77.8" in text
    header = next(line for line in text.splitlines() if line.startswith("| Arm") and "Milan" in line)
    assert all(f" {city} " in header for city in CITIES)
