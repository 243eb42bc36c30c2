"""Evaluation of a run's checkpoints: by one engine of this process, or by workers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from sftrl_ext.experiments.evaluation.engines import open_engine
from sftrl_ext.experiments.evaluation.evaluate import evaluate_run
from sftrl_ext.experiments.evaluation.evaluate_parallel import evaluate_in_parallel
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.experiments.evaluation.units import worker_count
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.state import RunState


def evaluate_checkpoints(recipe: Recipe, state: RunState, layout: RunLayout, sets: Sequence[EvalSet]) -> None:
    """Evaluate the checkpoints of a run's stages on some splits, those that have no records yet."""
    import torch

    progress = ProgressFile.of_stage()
    progress.show("the engine loads the model")
    if worker_count(recipe.scale) > 0:
        console = Console(file=sys.stdout, emoji=False)
        evaluate_in_parallel(recipe, state, layout, sets, console)
        return
    torch.set_num_threads(recipe.scale.eval_threads)
    engine = open_engine(
        recipe.scale.engine,
        layout.start_model,
        dtype=recipe.model.dtype,
        rows=recipe.budget.eval.batch_size,
    )
    evaluate_run(recipe, state, layout, sets, engine, progress)
