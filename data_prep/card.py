"""The dataset card: what is in the files of a run, and which of them share instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import LOSS_NOTE, read_schema
from data_prep.task_card import TaskCard
from data_prep.task_rows import find_rows
from sftrl_ext.envs import TASKS, parse_facts
from sftrl_ext.envs.task import task_of_source
from sftrl_ext.files import parquet_errors, write_text

MOST_LEFT_OUT = 50
"""Sentences of the card about what is left out, at most."""


@dataclass
class FileFacts:
    """Statistics of one file.

    Attributes:
        path: The file.
        rows: Number of rows.
        answered: Rows with a dialogue (SFT rows).
        splits: Rows per split.
        seeds: Seeds of the rows.
        templates: Prompt templates of the rows.
        tasks: Task to its card.
    """

    path: Path
    rows: int = 0
    answered: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    seeds: set[int] = field(default_factory=set)
    templates: set[str] = field(default_factory=set)
    tasks: dict[str, Any] = field(default_factory=dict)


def inspect_file(path: str | Path) -> FileFacts:
    """Count the rows of a file by their facts, in constant memory.

    Raises:
        SftrlError: if the file does not have our schema.
    """
    path = Path(path)
    read_schema(path)
    contents = FileFacts(path)
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["data_source", "extra_info", "train_turns"]):
            for row in batch.to_pylist():
                extra = row["extra_info"]
                contents.rows += 1
                contents.answered += bool(row["train_turns"])
                contents.splits[extra["split"]] += 1
                contents.seeds.add(extra["seed"])
                facts = parse_facts(extra["facts"], f"{path}: row {contents.rows - 1}: facts")
                card = _card_of(contents, facts, row["data_source"], file.schema_arrow)
                if facts and card is not None:
                    card.add(facts)
                    contents.templates.update({facts["template"]} if "template" in facts else ())
    return contents


def _card_of(
    contents: FileFacts, facts: Mapping[str, Any], data_source: str, schema: pa.Schema
) -> TaskCard | None:
    """The card for a row; an imported row without facts belongs to the task of its data source."""
    source_task = None if facts else task_of_source(data_source)
    task = facts.get("task") or (source_task.name if source_task else None)
    if task is None:
        return None
    if task not in contents.tasks:
        contents.tasks[task] = find_rows(task).card()
        contents.tasks[task].read_schema(schema, contents.path)
    card: TaskCard = contents.tasks[task]
    return card


def card_text(files: Sequence[FileFacts], left_out: Sequence[str] = ()) -> str:
    """The card as Markdown, with the files named by their stems.

    Args:
        files: Statistics of the files.
        left_out: One sentence for each thing that the files leave out of their sources.
    """
    lines = ["# Dataset card"]
    for task in TASKS:
        held = [facts for facts in files if task in facts.tasks]
        lines += _task_lines(held, [facts.tasks[task] for facts in held]) if held else []
    if left_out:
        rest = len(left_out) - MOST_LEFT_OUT
        lines += ["", "## Left out", "", *(f"- {sentence}" for sentence in left_out[:MOST_LEFT_OUT])]
        lines += [f"- and {rest} more; the log of the stage `data` has them all."] if rest > 0 else []
    return "\n".join(lines) + "\n"


def _task_lines(files: Sequence[FileFacts], cards: Sequence[TaskCard]) -> list[str]:
    """The table of one task, and the overlap of its files."""
    first = cards[0]
    rules, shown = first.heads
    heads = ["file", "rows:", "kind", "splits", rules, "seeds", "template", shown, *first.columns]
    lines = [
        "",
        *first.intro,
        "",
        f"| {' | '.join(head.rstrip(':') for head in heads)} |",
        f"|{'|'.join('---:' if head.endswith(':') else '---' for head in heads)}|",
    ]
    lines += [_line(facts, card) for facts, card in zip(files, cards, strict=True)]
    if any(facts.answered for facts in files):
        lines += ["", f"Of rows for SFT {LOSS_NOTE}."]
    lines += [*first.further_lines(cards), "", "## Overlap", "", f"{first.shared} that two files share.", ""]
    lines += [f"| | {' | '.join(facts.path.stem for facts in files)} |", f"|---|{'---:|' * len(files)}"]
    sets = [card.instances() for card in cards]
    for facts, instances in zip(files, sets, strict=True):
        lines.append(f"| {facts.path.stem} | {' | '.join(str(len(instances & other)) for other in sets)} |")
    return lines


def _line(facts: FileFacts, card: TaskCard) -> str:
    columns = [
        facts.path.stem,
        f"{facts.rows:,}",
        "RL / evaluation" if not facts.answered else "SFT",
        _counts(facts.splits),
        _counts(card.rules),
        ", ".join(map(str, sorted(facts.seeds))),
        ", ".join(sorted(facts.templates)),
        _counts(card.shown),
        *card.cells(),
    ]
    return f"| {' | '.join(columns)} |"


def write_card(
    files: Sequence[str | Path],
    path: str | Path,
    left_out: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> str:
    """Write the card of some parquet files, and give its text.

    Args:
        files: The parquet files.
        path: Where to, usually ``dataset_card.md`` beside the files.
        left_out: One sentence for each thing that the files leave out of their sources.
        sections: Further sections, such as those of `data_prep.held_out` and `data_prep.origins`.
    """
    text = "\n".join([card_text([inspect_file(file) for file in files], left_out), *sections])
    write_text(Path(path), text)
    return text


def _counts(counter: Counter[str]) -> str:
    if len(counter) == 1:
        return next(iter(counter))
    return ", ".join(f"{name} {count:,}" for name, count in counter.items())
