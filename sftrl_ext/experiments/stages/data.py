"""The data stage: every parquet file of a run, built by its task."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from data_prep.card import write_card
from data_prep.held_out import HeldOutCheck, held_out_text
from data_prep.origins import Origin, origins_text, path_digest, write_origins
from data_prep.task_rows import Builder, Splits, Tables, TaskRows, find_rows
from data_prep.writer import write_rows
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import named
from sftrl_ext.experiments.recipe.arms import ArmRun, arm_runs, is_row_file, needs_init
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.stages.user_rows import import_arm_rows
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile

_REPLAY_SEED = 1_010
"""First seed of replayed rows: other hands than those of pre-training."""
_EXPOSURE_SEED = 100_000
"""Step between the seeds of splits that a base is exposed to."""


def build_data(recipe: Recipe, layout: RunLayout) -> None:
    """Build every parquet file of the run: pre-training, init, each seed's rows for every arm, evaluation."""
    task, budget = recipe.task, recipe.budget
    make = find_rows(task.kind)(task, layout.cities, pretrain=budget.base is not None)
    first: dict[str, Tables] = {}
    if budget.base is not None:
        dialogues = round(budget.base.dialogues * budget.base.rows)
        answers = _pretraining_rows(make.sft, task, budget.base.rows - dialogues, 1_000)
        first["base"] = chain(answers, _pretraining_rows(make.dialogues, task, dialogues, 1_002))
    if budget.dialogues is not None:
        first["dialogues"] = _pretraining_rows(make.dialogues, task, budget.dialogues.rows, 1_001)
    if needs_init(recipe):
        first["init"] = make.sft(task.train_split, budget.init.rows, 2_000)
    runs = {run.rows: run for run in arm_runs(recipe)}
    progress = ProgressFile.of_stage()
    progress.count(len(first) + len(runs) + len(task.eval_splits), "files")

    def write(path: Path, tables: Tables) -> int:
        rows = write_rows(path, tables, progress=lambda rows: progress.show(f"{path.stem}: {rows:,} rows"))
        progress.advance()
        return rows

    checks: list[HeldOutCheck] = []
    for name, tables in first.items():
        write(layout.rows(name), tables)
        check = make.check_held_out(layout.rows(name), init=name == "init")
        checks += [] if check is None else [check]
    origins: dict[str, Origin] = {}
    for run in runs.values():
        if is_row_file(run.config.rows):
            origins[run.rows] = import_arm_rows(recipe, run, layout, progress)
            progress.advance()
        else:
            name = run.rows if run.sampled_by is None else run.prompts
            write(layout.rows(name), _rows_of(run, make, recipe, layout.cities))
    for split in task.eval_splits:
        out = layout.eval_rows(split)
        if split in task.eval_sets:
            path, limit = Path(task.eval_sets[split]), budget.eval.hands_of.get(split)
            with named(f"task.eval_sets.{split}"):
                rows = write(out, make.given(path, split, budget.eval.seed, limit))
            origins[out.stem] = Origin(str(path), path_digest(path), rows, rows)
            continue
        rows = budget.eval.hands_of.get(split) or make.benchmark_rows(split) or budget.eval.hands
        write(out, make.prompts(split, rows, budget.eval.seed, train=False))
    write_origins(layout.origins, origins)
    for note in make.notes:
        sys.stdout.write(f"left out: {note}\n")
    files = sorted(layout.data.glob("*.parquet"))
    sections = [text for text in (held_out_text(checks), origins_text(origins)) if text]
    write_card(files, layout.data / "dataset_card.md", make.notes, sections)


def _pretraining_rows(build: Builder, task: TaskConfig, rows: int, seed: int) -> Tables:
    """Rows of the splits that a base is pre-trained on, then of each that it is exposed to."""
    exposed = {split: round(share * rows) for split, share in task.exposure.items()}
    both = list(task.pretrain_splits) or task.train_split
    parts: list[tuple[Splits, int]] = [(both, rows - sum(exposed.values())), *exposed.items()]
    # The trainer shuffles them.
    for number, (splits, count) in enumerate(parts):
        if count:
            yield from build(splits, count, seed + number * _EXPOSURE_SEED, pretraining=True)


def _rows_of(run: ArmRun, make: TaskRows, recipe: Recipe, folder: Path) -> Tables:
    """Training rows of one run of an arm, or the prompts that they are sampled for."""
    arm, rows, task = run.config, run.data_rows, recipe.task
    splits: Splits = list(arm.splits) or task.train_split
    if arm.kind == "rl" or run.sampled_by is not None:
        return make.prompts(splits, rows, run.seed, attempts=arm.max_attempts)
    if arm.solutions is not None:
        make = find_rows(task.kind)(replace(task, solutions=arm.solutions), folder)
    if arm.rows == "suboptimal":
        return make.dialogues(splits, rows, run.seed, fewest=1, pretraining=False, attempts=arm.max_attempts)
    if arm.rows == "reasoned":
        return make.reasoned(splits, rows, run.seed, attempts=arm.max_attempts)
    replayed = round(arm.replay * rows)
    answers = make.sft(splits, rows - replayed, run.seed, attempts=arm.max_attempts)
    if not replayed:
        return answers
    return chain(answers, _pretraining_rows(make.sft, task, replayed, _REPLAY_SEED + run.seed))
