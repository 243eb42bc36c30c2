"""A run as a folder to be uploaded: checkpoints, rows, results and figures, each with its card.

The folder is written under a temporary name beside its own and renamed at the end, so that it is whole or not
there. Weights and parquet files are hard links where the file system can: every writer of a run replaces its
files by a rename, and never changes them in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from data_prep.images import IMAGE_ROW_GROUP, embed_images
from data_prep.schema import IMAGE_SCHEMA, read_schema, with_loss_mask
from data_prep.writer import write_rows
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.publish.cards import dataset_card, model_card, readme
from sftrl_ext.files import link_or_copy, parquet_errors, write_text
from sftrl_ext.reports.results_file import write_results
from sftrl_ext.runs.checkpoints import list_checkpoints
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.run_folder import RunFolder, load_run

_LINKED = (".safetensors", ".parquet")
"""Endings of files that are linked; others are copied, so that they can be edited."""


@dataclass
class _Publication:
    """Files that go into the folder, collected before any is written.

    Attributes:
        files: Path within the folder to the file it is made from.
        steps: Stage to its published steps.
        notes: One sentence for each thing that is not there.
    """

    files: dict[Path, Path] = field(default_factory=dict)
    steps: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_folder(self, source: Path, target: Path) -> None:
        """Add all files below a folder."""
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            self.files[target / path.relative_to(source)] = path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def publish_run(run_dir: Path, target: Path, console: Console, embed: bool = False) -> None:
    """Write a finished run as a folder whose parts are repositories of the hub.

    Args:
        run_dir: The run.
        target: The folder; it must not exist.
        console: Where progress is shown.
        embed: Write the pictures of the rows into the parquet files.

    Raises:
        SftrlError: if the folder exists, the run is not finished, or its rows have no pictures to embed.
    """
    if target.exists() or target.is_symlink():
        raise SftrlError(f"{target}: exists already; expected the name of a new folder.")
    run, layout = load_run(run_dir), RunLayout(run_dir)
    for stage in run.stages:
        if stage.status != "done":
            raise SftrlError(
                f"{run_dir}: stage {stage.name!r} is {stage.status}; expected a finished run. Continue "
                f"it with `sftrl resume {run_dir}`."
            )
    images = run.recipe.task.get("modality") == "image"
    if embed and not images:
        raise SftrlError(f"{run_dir}: its rows show no pictures; expected nothing of --embed-images.")
    publication = _collect(run, layout)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with _progress(console, publication.size) as advance:
            _write_files(publication, partial, advance, embed)
        _write_cards(run, publication, partial, target, images)
        partial.chmod(0o755)  # a temporary folder can be read by its owner only
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _collect(run: RunFolder, layout: RunLayout) -> _Publication:
    """The files of a run that are published."""
    publication = _Publication()
    for stage in run.stages:
        if stage.kind not in ("sft", "rl"):
            continue
        checkpoints = list_checkpoints(layout.checkpoints(stage.name))
        if not checkpoints:
            publication.notes.append(f"no checkpoints of the stage `{stage.name}`")
            continue
        publication.steps[stage.name] = [checkpoint.step for checkpoint in checkpoints]
        for checkpoint in checkpoints:
            folder = Path("models", stage.name, f"step_{checkpoint.step}")
            publication.add_folder(checkpoint.folder, folder)
        for path in (layout.metrics(stage.name), layout.tokens(stage.name)):
            if path.is_file():
                publication.files[Path("results", "stages", stage.name, path.name)] = path
    for path in sorted(layout.data.glob("*.parquet")):
        publication.files[Path("data", path.name)] = path
    if not any(layout.data.glob("*.parquet")):
        publication.notes.append("no parquet files of rows")
    for path in (layout.recipe, layout.state, layout.records, layout.episodes, layout.origins):
        if path.is_file():
            publication.files[Path("results", path.name)] = path
    if layout.report.is_dir():
        publication.add_folder(layout.report, Path("results", "report"))
    else:
        publication.notes.append(f"no report and figures: `sftrl report {layout.root}` writes them")
    return publication


@contextmanager
def _progress(console: Console, size: int) -> Iterator[Callable[[int], None]]:
    """Progress bar over bytes, on a terminal only."""
    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("files", total=size)
        yield lambda size: bar.advance(task, size)


def _write_files(
    publication: _Publication, folder: Path, advance: Callable[[int], None], embed: bool
) -> None:
    for name, source in publication.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if embed and source.suffix == ".parquet" and "images" not in read_schema(source).names:
            write_rows(path, embed_images(_tables(source)), IMAGE_SCHEMA)
        elif source.suffix in _LINKED:
            link_or_copy(source.resolve(), path)
        else:
            shutil.copyfile(source, path)
        advance(source.stat().st_size)


def _tables(path: Path) -> Iterator[pa.Table]:
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(IMAGE_ROW_GROUP):
            yield with_loss_mask(pa.Table.from_batches([batch], file.schema_arrow))


def _write_cards(run: RunFolder, publication: _Publication, folder: Path, target: Path, images: bool) -> None:
    for stage in run.stages:
        if stage.name in publication.steps:
            text = model_card(run, stage, publication.steps[stage.name], images)
            write_text(folder / "models" / stage.name / "README.md", text)
    rows = {
        path.stem: pq.read_metadata(path).num_rows for path in sorted((folder / "data").glob("*.parquet"))
    }
    if rows:
        written = RunLayout(run.folder).data / "dataset_card.md"
        text = written.read_text(encoding="utf-8") if written.is_file() else ""
        write_text(folder / "data" / "README.md", dataset_card(run, rows, text, images))
    notes = list(publication.notes)
    try:
        write_results(run.folder, folder / "results")
    except SftrlError as error:  # a run that was not evaluated
        notes.append(f"no results file: {error}")
    models = [*publication.steps]
    write_text(folder / "README.md", readme(run, target, models, bool(rows), notes))
