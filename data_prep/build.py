"""Files of ``sftrl data``: built rows of one kind, imported rows, or the product of a task's command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from data_prep.authors import import_authors
from data_prep.options import GIVEN, IMPORT, DataOptions, Tell, counted_rows
from data_prep.schema import IMAGE_SCHEMA, LOSS_NOTE
from data_prep.task_rows import KINDS, TaskRows, check_working, find_rows
from data_prep.writer import write_rows
from sftrl_ext.envs.task import TASKS
from sftrl_ext.errors import unknown_name
from sftrl_ext.plugins import load_plugins


def build_file(options: DataOptions, tell: Tell = lambda text: None) -> int:
    """Build or import one parquet file, or run a command of a task.

    Args:
        options: The options.
        tell: Takes a sentence about each thing that was left out.

    Returns:
        Number of rows written, or the count of a task's command; see `unit_of`.

    Raises:
        SftrlError: for an unknown kind, task, split, draw, profile, template or look, or a missing file.
    """
    commands = {kind: command for _, kind, command in _commands()}
    if options.kind in commands:
        return commands[options.kind](options)
    task_rows = find_rows(options.task)
    check_working(options.kind, options.task)
    if options.kind not in kinds_of(options.task):
        raise unknown_name("kind of rows", options.kind, kinds_of(options.task))
    options.check_task()
    config = options.config()
    if options.kind == IMPORT:
        with counted_rows() as progress:
            return import_authors(options.authors_file(), options.out, config=config, progress=progress)
    task_rows.configure(config, options)
    builder = task_rows(config, options.out.parent)
    rows = _write(builder, options)
    for note in builder.notes:
        tell(f"left out: {note}")
    if options.kind == "suboptimal":
        tell(f"note: {LOSS_NOTE}")
    return rows


def _write(builder: TaskRows, options: DataOptions) -> int:
    if options.kind == GIVEN:
        return write_rows(options.out, builder.given(options.given_file(), options.split, options.seed))
    embed = options.embed_images
    source = builder.source(options.splits, options.seed, train=not options.eval)
    tables = builder.build(options.kind, source, options.rows, images="embed" if embed else "draw")
    return write_rows(options.out, tables, IMAGE_SCHEMA if embed else None)


def kinds_of(task: str) -> list[str]:
    """The kinds of `build_file` for a task."""
    rows = [kind for kind in KINDS if kind != "reasoned" or TASKS[task].no_working is None]
    return [*rows, IMPORT, GIVEN, *(kind for _, kind, _ in _commands())]


def unit_of(kind: str) -> str:
    """Unit that a kind of `build_file` counts, in the plural."""
    return next((unit for unit, name, _ in _commands() if name == kind), "rows")


def _commands() -> Iterator[tuple[str, str, Callable[[DataOptions], int]]]:
    """The commands of all tasks: what each counts, its kind and its function."""
    load_plugins()
    for task in TASKS:
        if TASKS[task].rows:
            for kind, (unit, command) in find_rows(task).commands.items():
                yield unit, kind, command
