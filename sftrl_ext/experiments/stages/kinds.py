"""Function of every kind of stage other than training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pyarrow.parquet as pq

from sftrl_ext.envs.base import IMAGE_MARKER
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.errors import Registry
from sftrl_ext.experiments.evaluation.checkpoints import evaluate_checkpoints
from sftrl_ext.experiments.evaluation.targets import eval_set_of
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.experiments.stages.sampled_rows import sample_rows
from sftrl_ext.experiments.start_models.start_choice import choose_start
from sftrl_ext.files import write_json
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState

KINDS: Registry[Callable[..., None]] = Registry("kind of stage")
"""Function of each kind of stage; it gets the recipe, the run, and where there can be several its name."""

KINDS.add("data", build_data)
KINDS.add("choice", choose_start)
KINDS.add("answers", sample_rows)


@KINDS.register("model")
def put_start_model(recipe: Recipe, layout: RunLayout) -> None:
    """Put the model the first training stage starts from into the run folder, and note its size."""
    from sftrl_ext.experiments.start_models.pretrained import check_context, check_engine, fetch_model
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
    from sftrl_ext.experiments.start_models.tiny_vision import build_tiny_qwen_vl
    from sftrl_ext.hf_folder import critic_parameter_count, parameter_count

    model = recipe.model
    if model.path is None and model.package is None:
        build = build_tiny_llama if model.vision is None else build_tiny_qwen_vl
        build(layout.start_model, _sample_texts(layout), model, seed=0)
    else:
        done = fetch_model(model, layout.start_model, portable=recipe.scale.nnodes > 1)
        check_engine(layout.start_model, recipe.scale.engine)
        sys.stdout.write(f"{done}\n")
    lengths = recipe.budget.rl
    check_context(layout.start_model, lengths.max_prompt_length + lengths.max_response_length)
    size = {
        "parameters": parameter_count(layout.start_model),
        "critic_parameters": critic_parameter_count(layout.start_model),
    }
    write_json(layout.start_model / "size.json", size)


@KINDS.register("eval")
def evaluate(recipe: Recipe, layout: RunLayout) -> None:
    """Evaluate every checkpoint on every split."""
    sets = [eval_set_of(recipe, layout, split) for split in recipe.task.eval_splits]
    evaluate_checkpoints(recipe, RunState.load(layout.state), layout, sets)


@KINDS.register("report")
def report(recipe: Recipe, layout: RunLayout) -> None:
    """Draw the figures and write the report from the stored metrics."""
    from sftrl_ext.reports import build_report

    build_report(layout.root)


def _sample_texts(layout: RunLayout, rows: int = 2_000) -> list[str]:
    """Texts of the pre-training rows, feedback included, for the tokenizer."""
    table = pq.ParquetFile(layout.rows("base"))
    batch = next(table.iter_batches(rows, columns=["messages", "extra_info"])).to_pylist()
    texts = [message["content"].replace(IMAGE_MARKER, "") for row in batch for message in row["messages"]]
    for row in batch[:20]:  # feedback: a wrong answer of each kind
        facts = json.loads(row["extra_info"]["facts"])
        for wrong in (*TASKS[facts["task"]].wrong_answers, row["messages"][-1]["content"].replace("*", "+")):
            episode = make_episode(facts)
            texts += [step.reply for step in [episode.submit(wrong)] if step.reply] * 20
    return texts
