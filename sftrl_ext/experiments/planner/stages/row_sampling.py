"""Work of sampling an arm's rows from the model it starts from, which counts as the arm's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sftrl_ext.experiments.planner import work
from sftrl_ext.experiments.planner.stages.stage import PlanContext
from sftrl_ext.experiments.planner.stages.workload import Workload
from sftrl_ext.experiments.planner.work import RLShape, Work
from sftrl_ext.runs.token_counts import TokenCount


def with_sampling(context: PlanContext, workload: Workload, episodes: float, amount: Work) -> Work:
    """The work of a stage with that of sampling its rows by one engine.

    Args:
        context: The recipe's context.
        workload: Lengths of the sampled episodes.
        episodes: Episodes that are sampled.
        amount: The work without.
    """
    weight = 4 if context.cpu else 2
    shape = RLShape(updates=1, episodes=episodes, epochs=0, devices=1, weight_bytes=weight)
    sampled = work.rl_work(context.architecture, context.hardware, context.efficiency, workload, shape)
    flops = {phase: sampled.flops[phase] for phase in ("prefill", "decode")}
    seconds = {phase: sampled.seconds[phase] for phase in ("prefill", "decode", "start")}
    tokens = TokenCount(generated=sampled.tokens.generated, prefill=sampled.tokens.prefill)
    return replace(
        amount,
        generated=amount.generated + tokens.generated,
        flops=_sum(amount.flops, flops),
        seconds=_sum(amount.seconds, seconds),
        tokens=amount.tokens + tokens,
    )


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {key: first.get(key, 0.0) + second.get(key, 0.0) for key in {**first, **second}}
