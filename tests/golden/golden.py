"""Golden outputs: the report of one stored run, and the plan of every recipe at every scale.

Run as a module, it writes both anew. Do so only for a change that is meant to alter them, and name the
altered keys in the commit.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import sftrl_ext
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.paths import configs_dir
from sftrl_ext.reports import build_report

FOLDER = Path(__file__).parent
RUN = FOLDER / "fig7_gp_vl-smoke.tar.gz"
"""Text files of a run of `sftrl run fig7_gp_vl --scale smoke model.freeze=vision` at commit 62ba1e7."""
SUMMARY = FOLDER / "summary.json"
FIGURES = FOLDER / "figures.json"
PLANS = FOLDER / "plans.json.gz"
SCALES = ("smoke", "laptop", "gpu", "node", "cluster")
RUN_DIR = Path("/runs/x")


def report_of_stored_run(folder: Path) -> tuple[str, list[Any]]:
    """Draw the report of the stored run.

    Args:
        folder: Where to unpack it.

    Returns:
        The text of ``summary.json``, and the numbers of every figure.
    """
    with tarfile.open(RUN) as archive:
        archive.extractall(folder, filter="data")
    with captured_figures() as figures:
        paths = build_report(folder)
    return paths.summary.read_text(encoding="utf-8"), figures


@contextlib.contextmanager
def captured_figures() -> Iterator[list[Any]]:
    """Collect the numbers of figures that are saved as SVG, in their order."""
    figures: list[Any] = []
    save = Figure.savefig

    def savefig(figure: Figure, target: Any, *args: Any, **options: Any) -> None:
        save(figure, target, *args, **options)
        if options.get("format") == "svg":
            figures.append(numbers(figure))

    Figure.savefig = savefig
    try:
        yield figures
    finally:
        Figure.savefig = save


def numbers(figure: Figure) -> list[dict[str, Any]]:
    """Coordinates of lines, points and bars of every panel, to six digits."""
    return [
        {
            "lines": [_rounded(line.get_xydata()) for line in axes.lines],
            "points": [_rounded(points.get_offsets()) for points in axes.collections],
            "bars": [_rounded(bar.get_bbox().bounds) for bar in axes.patches if hasattr(bar, "get_bbox")],
        }
        for axes in figure.axes
    ]


def _rounded(values: Any) -> Any:
    array = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    return [
        [None if np.isnan(value) else float(f"{value:.6g}") for value in row] for row in np.atleast_2d(array)
    ]


def plans() -> dict[str, list[dict[str, Any]]]:
    """Every stage of every recipe's plan at every scale: its name, variables and command."""
    package = Path(sftrl_ext.__file__).parent
    replaced = {sys.executable: "{python}", str(configs_dir()): "{configs}", str(package): "{package}"}

    def general(word: str) -> str:
        for path, name in replaced.items():
            word = word.replace(path, name)
        return word

    return {
        f"{path.stem}-{scale}": [
            {
                "name": stage.name,
                "env": {key: general(value) for key, value in sorted(stage.env.items())},
                "command": [general(word) for word in stage.command],
            }
            for stage in make_plan(load_recipe(path.stem, scale), RUN_DIR)
        ]
        for path in distinct_recipes()
        for scale in SCALES
    }


def stored_plans() -> dict[str, list[dict[str, Any]]]:
    """The golden plans."""
    return json.loads(gzip.decompress(PLANS.read_bytes()))


def main() -> None:
    """Write all golden outputs."""
    with tempfile.TemporaryDirectory() as folder:
        summary, figures = report_of_stored_run(Path(folder) / "run")
    SUMMARY.write_text(summary, encoding="utf-8")
    FIGURES.write_text(json.dumps(figures, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    PLANS.write_bytes(gzip.compress(json.dumps(plans()).encode(), mtime=0))


if __name__ == "__main__":
    main()
