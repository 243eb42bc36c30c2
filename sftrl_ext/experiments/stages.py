"""Stages other than training, each a process of its own: ``stages <kind> <run folder> [<name>]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from data_prep.schema import read_schema
from sftrl_ext.envs.base import IMAGE_MARKER, parse_facts
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.errors import Registry, SftrlError, unknown_name
from sftrl_ext.experiments.data_stage import build_data
from sftrl_ext.experiments.evaluation.evaluate import EvalEngine, EvalSet, evaluate_run
from sftrl_ext.experiments.evaluation.units import worker_count
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.start_models.start_choice import choose_start
from sftrl_ext.files import write_json
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState

KINDS: Registry[Callable[..., None]] = Registry("kind of stage")
"""Function of each kind of stage; it gets the recipe, the run, and a choice its name."""


KINDS.add("data", build_data)
KINDS.add("choice", choose_start)


@KINDS.register("model")
def put_start_model(recipe: Recipe, layout: RunLayout) -> None:
    """Put the model the first training stage starts from into the run folder, and note its size."""
    from sftrl_ext.experiments.start_models.pretrained import check_engine, fetch_model
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
    size = {
        "parameters": parameter_count(layout.start_model),
        "critic_parameters": critic_parameter_count(layout.start_model),
    }
    write_json(layout.start_model / "size.json", size)


@KINDS.register("eval")
def evaluate(recipe: Recipe, layout: RunLayout) -> None:
    """Evaluate every checkpoint on every split."""
    sets = [load_eval_set(layout.eval_rows(split)) for split in recipe.task.eval_splits]
    evaluate_checkpoints(recipe, RunState.load(layout.state), layout, sets)


def evaluate_checkpoints(recipe: Recipe, state: RunState, layout: RunLayout, sets: Sequence[EvalSet]) -> None:
    """Evaluate the checkpoints of a run's stages on some splits, those that have no records yet."""
    import torch

    console = Console(file=sys.stdout)
    if worker_count(recipe.scale) > 0:
        from sftrl_ext.experiments.evaluation.evaluate_parallel import evaluate_in_parallel

        evaluate_in_parallel(recipe, state, layout, sets, console)
        return
    torch.set_num_threads(recipe.scale.eval_threads)
    engine = open_engine(
        recipe.scale.engine,
        layout.start_model,
        dtype=recipe.model.dtype,
        rows=recipe.budget.eval.batch_size,
    )
    with Progress(console=console) as progress:
        evaluate_run(recipe, state, layout, sets, engine, progress)


@KINDS.register("report")
def report(recipe: Recipe, layout: RunLayout) -> None:
    """Draw the figures and write the report from the stored metrics."""
    from sftrl_ext.reports import build_report

    build_report(layout.root)


def load_eval_set(path: Path) -> EvalSet:
    """Read the instances of one split from its parquet file.

    Raises:
        SftrlError: if the file has another schema, or rows of several splits.
    """
    read_schema(path)
    table = pq.read_table(path, columns=["data_source", "extra_info"])
    sources = set(table["data_source"].to_pylist())
    infos = table["extra_info"].to_pylist()
    if len(sources) != 1:
        raise SftrlError(
            f"{path}: rows of {len(sources)} data sources ({sorted(sources)}), expected exactly one."
        )
    facts = [parse_facts(info["facts"], f"{path}, row {row}: facts") for row, info in enumerate(infos)]
    return EvalSet(infos[0]["split"], sources.pop(), facts)


def open_engine(
    name: str, folder: Path, *, dtype: str, rows: int, tensor_parallel: int = 1, device: str = "cpu"
) -> EvalEngine:
    """Start an evaluation engine on a model folder.

    Args:
        name: ``hf`` or ``vllm``.
        folder: A Hugging Face folder with a tokenizer.
        dtype: Type of the weights.
        rows: Requests decoded at the same time (``hf``).
        tensor_parallel: GPUs one model is spread over (``vllm``).
        device: Where the model is (``hf``).
    """
    if name == "vllm":
        from sftrl_ext.backends.vllm.engine import VllmEngine

        return VllmEngine(folder, dtype=dtype, tensor_parallel=tensor_parallel)
    if name != "hf":
        raise unknown_name("engine", name, ("hf", "vllm"))
    import torch

    from sftrl_ext.backends.hf.local_engine import LocalEngine

    return LocalEngine(folder, dtype=getattr(torch, dtype), max_rows=rows, device=device)


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


def main(argv: list[str] | None = None) -> int:
    """Run one stage: ``<kind> <run folder> [<name>]``."""
    kind, run_dir, *name = (sys.argv[1:] if argv is None else argv)[:3]
    layout = RunLayout(Path(run_dir))
    try:
        KINDS[kind](from_yaml(layout.recipe), layout, *name)
    except SftrlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
