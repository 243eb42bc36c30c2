"""Draw the pictures of ``docs/figures.md``: ``python -m tests.reports.paper.paper_gallery docs/figures``.

Figures of experiments with stored results are drawn from ``results/``, the others from the synthetic runs of
the tests, with a mark in the picture.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from sftrl_ext.reports.figures.style import look
from sftrl_ext.reports.paper.figures import paper_figure
from sftrl_ext.reports.paper.runs import TITLES, load_analysis, on_common_axis
from tests.reports.paper.paper_runs import paper_run

RESULTS = Path(__file__).parents[3] / "results"
STORED = {
    "fig1": ["fig6_virl_l"],
    "fig5": ["fig6_gp_l", "fig6_virl_l", "fig7_gp_vl", "fig7_virl_vl"],
    "fig6": ["fig6_gp_l", "fig6_virl_l", "fig7_gp_vl", "fig7_virl_vl"],
    "fig18": ["fig7_virl_vl"],
}
"""Figure to the results files it is drawn from."""
SYNTHETIC = {
    "fig7": ["fig6_gp_vl", "fig6_virl_vl"],
    "fig8": ["fig6_gp_vl"],
    "fig9": ["fig9_rl_without_init"],
    "fig10": ["fig10_attempts"],
    "fig15": ["fig15_suboptimal_sft"],
    "fig16": ["fig16_sft_ablation"],
    "fig17": ["fig17_rl_rates"],
    "fig19": ["fig19_overfit_init"],
}
"""Figure to the recipes of its synthetic runs."""


def draw_gallery(folder: Path) -> None:
    """Draw every picture into a folder as ``paper-<figure>.png``."""
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, Path] = {}
        for name, recipes in {**STORED, **SYNTHETIC}.items():
            if name in STORED:
                paths = [RESULTS / f"{recipe}-laptop.json" for recipe in recipes]
                mark = None
            else:
                for recipe in recipes:
                    made[recipe] = made.get(recipe) or paper_run(Path(scratch) / recipe, recipe)
                paths = [made[recipe] for recipe in recipes]
                mark = "SYNTHETIC RECORDS: nothing was trained"
            _draw(name, paths, folder / f"paper-{name}.png", mark)


def _draw(name: str, paths: list[Path], path: Path, mark: str | None) -> None:
    with look():
        analyses = [load_analysis(p) for p in paths]
        figure = paper_figure(name).draw(on_common_axis(analyses))
        assert figure is not None
        marks = [f"{TITLES[found.task]}: {found.mark}" for found in analyses if found.mark]
        mark = mark or "; ".join(marks)
        if mark:
            room = figure.legend(handles=[], title=mark, loc="outside lower right", frameon=False)
            room.get_title().set(color="#B03A2E", fontsize=9)
        figure.savefig(path, dpi=120, metadata={"Software": None})
    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    draw_gallery(Path(sys.argv[1]))
