"""Results by city, where a split walks several: the mini benchmark has two routes in each of nine cities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftrl_ext.reports.analysis.curves import Checkpoint
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.pages.tables import Table, compared_rows
from sftrl_ext.runs.records import CityCount


def city_splits(analysis: Analysis) -> list[str]:
    """Splits whose records have counts by city."""
    return [
        split
        for split in analysis.curves.splits
        if any(c.results[split].by_city for c in analysis.curves.checkpoints() if split in c.results)
    ]


def city_counts(checkpoints: Sequence[Checkpoint], split: str) -> dict[str, CityCount]:
    """City to the counts of some checkpoints together, in the order of the records."""
    total: dict[str, CityCount] = {}
    for checkpoint in checkpoints:
        record = checkpoint.results.get(split)
        for city, count in record.by_city.items() if record else ():
            total[city] = total[city] + count if city in total else count
    return total


def city_table(analysis: Analysis, split: str) -> Table:
    """The compared checkpoints by city: whole routes that were walked, and per-step accuracy in percent.

    Args:
        analysis: The analysed run.
        split: One of `city_splits`.
    """
    rows = [(row, city_counts(row.checkpoints, split)) for row in compared_rows(analysis)]
    cities = sorted({city for _, counts in rows for city in counts})
    body = []
    for row, counts in rows:
        cells = [str(counts[city]) if city in counts else "–" for city in cities]
        body.append([*row.cells(analysis), *cells])
    return Table([analysis.column("Arm", split), "lr", "Step", *cities], body)


def city_heading(split: str) -> str:
    """The sentence above a table by city."""
    measure = "routes walked to the end of all routes, and per-step accuracy in percent"
    return f"By city, on `{split}`: {measure}, seeds pooled."


def city_lines(analysis: Analysis) -> list[dict[str, Any]]:
    """The same for the summary, one line for each arm, split and city."""
    return [
        {
            "arm": row.arm,
            "lr": row.lr,
            "steps": [c.step for c in row.checkpoints],
            "split": split,
            "city": city,
        }
        | {
            "routes": n.episodes,
            "solved": n.solved,
            "right_actions": n.correct_actions,
            "responses": n.responses,
        }
        for split in city_splits(analysis)
        for row in compared_rows(analysis)
        for city, n in city_counts(row.checkpoints, split).items()
    ]
