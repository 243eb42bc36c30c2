"""Files of several runs against the key that sets them apart: figure, table and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.files import write_json, write_text
from sftrl_ext.reports.figures.matplotlib_needed import needs_matplotlib
from sftrl_ext.reports.pages.tables import Table
from sftrl_ext.reports.varied_runs import VariedRuns, read_varied_runs, value_text


@dataclass(frozen=True)
class WrittenComparison:
    """Files of a comparison.

    Attributes:
        table: The table as Markdown, with its caption.
        paths: PNG, SVG, the table and the numbers as JSON.
    """

    table: str
    paths: Sequence[Path]


def comparison_table(runs: VariedRuns) -> Table:
    """Every measure ± SE, with the change from the start in brackets."""
    rows = []
    for run in runs.runs:
        for split in runs.splits:
            cells = []
            for arm in runs.arm_names:
                measure, moved = run.measure(arm, split), run.change(arm, split)
                text = "–" if measure is None else str(measure)
                cells.append(text if moved is None else f"{text} ({100 * moved.delta:+.1f})")
            rows.append([value_text(run.value), split, *cells, run.compute or "–"])
    header = [runs.key, "Split", *map(runs.arms.label, runs.arm_names), "Compute"]
    return Table(header, rows, text_columns=2)


def write_against(run_dirs: Sequence[Path], key: str, folder: Path) -> WrittenComparison:
    """Draw runs against a key of their recipes: ``against-<key>.png``, ``.svg``, ``.md`` and ``.json``.

    Args:
        run_dirs: The run folders.
        key: A key of the recipe.
        folder: Output folder.

    Raises:
        SftrlError: as `read_varied_runs`, or if matplotlib is not installed.
    """
    with needs_matplotlib("a figure"):
        from sftrl_ext.reports.figures.against_figure import success_against_key
        from sftrl_ext.reports.figures.style import look, save
    runs = read_varied_runs(run_dirs, key)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"against-{key}"
    with look():
        png, svg = save(success_against_key(runs), folder, name)
    table = comparison_table(runs).to_markdown()
    text, numbers = folder / f"{name}.md", folder / f"{name}.json"
    write_text(text, f"{runs.caption}\n\n![{key}]({png.name})\n\n{table}\n")
    write_json(numbers, runs.numbers())
    return WrittenComparison(f"{runs.caption}\n\n{table}", (png, svg, text, numbers))
