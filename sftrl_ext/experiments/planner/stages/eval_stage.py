"""Plan of the evaluation of every saved checkpoint on every split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.given_files import count_given
from sftrl_ext.experiments.evaluation.units import worker_count
from sftrl_ext.experiments.planner import work
from sftrl_ext.experiments.planner.memory import VLLM_WORKSPACE, Keys, Phase
from sftrl_ext.experiments.planner.stages.stage import PlanContext, StagePlan
from sftrl_ext.experiments.planner.stages.workload import workload_of
from sftrl_ext.experiments.planner.work import RLShape

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


def evaluated_hands(recipe: Recipe) -> list[int]:
    """Episodes of each evaluated split; a set of given instances has as many as its file lists."""
    evaluation, sets = recipe.budget.eval, recipe.task.eval_sets

    def count(split: str) -> int:
        if split in evaluation.hands_of:
            return evaluation.hands_of[split]
        return count_given(Path(sets[split])) or evaluation.hands if split in sets else evaluation.hands

    return [count(split) for split in recipe.task.eval_splits]


def evaluation_plan(context: PlanContext, checkpoints: int) -> StagePlan:
    """Evaluation of every saved checkpoint on every split, by as many engines as the scale has."""
    recipe, a = context.recipe, context.architecture
    workload, evaluation = workload_of(recipe, a), recipe.budget.eval
    hands = evaluation.samples * sum(evaluated_hands(recipe))
    parallel = recipe.scale.tensor_parallel
    dtype = 4 if context.cpu else 2
    engines = max(1, worker_count(recipe.scale))
    shape = RLShape(
        updates=checkpoints, episodes=hands, epochs=0, devices=parallel * engines, tensor_parallel=parallel,
        sequences=evaluation.batch_size if recipe.scale.engine == "hf" else 256,
        critic=False, reference=False, sync_bytes=float(dtype * a.parameters), weight_bytes=dtype,
    )  # fmt: skip
    # An engine starts in a fraction of the time of verl's trainers.
    efficiency = replace(context.efficiency, start=0.3 * context.efficiency.start)
    amount = work.rl_work(a, context.hardware, efficiency, workload, shape)
    # Planned like the rollouts of RL, one update a checkpoint; what trains is taken out again.
    for phase in (
        "old log-probs",
        "update actor",
        "update critic",
        "reference",
        "values",
        "beside the model",
    ):
        amount.flops.pop(phase, None)
        amount.seconds.pop(phase, None)
    weights = float(dtype * a.parameters / parallel)
    row = a.kv_bytes(dtype) * workload.longest_row / parallel
    cache = row * shape.sequences
    if not context.cpu:
        cache = max(0.0, EVALUATION_UTILIZATION * context.hardware.memory - weights)
    peak = Phase(
        "generate",
        {"weights": weights, "kv_cache": cache},
        Keys("budget.eval.batch_size", ("scale.tensor_parallel",)),
    )
    memory = {"processes": 1e9 if context.cpu else 12e9, "phases": peak.total if context.cpu else 0.0}
    held = shape.sequences if context.cpu else max(0.0, cache - VLLM_WORKSPACE) / row
    return StagePlan("eval", "eval", (peak,), memory, (0.0, 0.0, 0.0), 0.0, amount, workload, held)


EVALUATION_UTILIZATION = 0.9
"""Share of the device that the evaluation's vLLM takes: vLLM's default."""
