"""Refusal of stages that the hardware cannot hold, with the keys to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.planner.architectures import UnknownArchitecture
from sftrl_ext.experiments.planner.hardware import GIB, host_memory
from sftrl_ext.experiments.planner.hardware import hardware_of as _hardware_of

if TYPE_CHECKING:
    from sftrl_ext.experiments.planner.memory import Phase
    from sftrl_ext.experiments.planner.stages.stage_plan import StagePlan
    from sftrl_ext.experiments.recipe.schema import Recipe

HEADROOM = 0.9
"""Share of a device, a host or a disk that may be planned: micro-batches are balanced, not bounded
(verl's ``seqlen_balancing.py: rearrange_micro_batches``), and the model of their memory has an error."""


def misfits(recipe: Recipe, plans: Sequence[StagePlan]) -> Iterator[str]:
    """Sentences about what does not fit, one for each stage and resource.

    Args:
        recipe: The recipe the plans are of.
        plans: Plans of its stages.
    """
    device = _hardware_of(recipe).memory
    host, free = host_memory(recipe), recipe.scale.disk_gb
    for plan in plans:
        # The evaluation's vLLM is alone on its device and takes the share it is given.
        if device and plan.kind != "eval" and plan.peak.total > HEADROOM * device:
            yield _device_misfit(recipe, plan, device)
        elif device and plan.kind != "sft" and plan.sequences < 1:
            yield (
                f"{plan.stage}: beside its weights vLLM has no room for the keys and values of one sequence. "
                "Change scale.tensor_parallel, scale.hardware, or the model."
            )
        if host is not None and plan.host_total > HEADROOM * host:
            largest = max(plan.host, key=lambda part: plan.host[part])
            yield (
                f"{plan.stage}: the host of a node needs {plan.host_total / 1e9:.0f} GB ({largest} "
                f"{plan.host[largest] / 1e9:.0f}), and {HEADROOM:.0%} of {host / 1e9:.0f} GB may be planned. "
                f"Change {_host_keys(largest)}."
            )
    needed = sum(plan.disk[1] for plan in plans)
    if free is not None and needed > HEADROOM * free * 1e9:
        yield (
            f"checkpoints need {needed / 1e9:.0f} GB, and {HEADROOM:.0%} of scale.disk_gb={free:g} may be "
            "planned. Change budget.sft.save_every or budget.rl.save_every, or scale.disk_gb."
        )


def _host_keys(part: str) -> str:
    keys = {"offloaded": "scale.offload, ", "data": "budget.rl.episodes, ", "phases": "the micro-batch, "}
    return f"{keys.get(part, '')}scale.n_gpus_per_node, or scale.host_memory_gb where the machine has more"


def _device_misfit(recipe: Recipe, plan: StagePlan, device: float) -> str:
    peak, limit = plan.peak, HEADROOM * device
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])[:3]
    listed = ", ".join(f"{name.replace('_', ' ')} {size / GIB:.1f}" for name, size in parts)
    return (
        f"{plan.stage}: {peak.name} needs {peak.total / GIB:.1f} GiB on each {_hardware_of(recipe).name} "
        f"({listed}), and {HEADROOM:.0%} of {device / GIB:.1f} GiB may be planned. "
        f"Change {', '.join(_device_keys(recipe, peak, limit))}."
    )


def _device_keys(recipe: Recipe, peak: Phase, limit: float) -> list[str]:
    """Keys that would help: the micro-batch if a smaller one is enough, else those of the models' share."""
    # A micro-batch of a tenth would fit.
    if peak.keys.batch and peak.batch and peak.total - peak.batch * 0.9 <= limit:
        keys = [peak.keys.batch]
    else:
        used = f"scale.offload={recipe.scale.offload}"
        keys = [key for key in peak.keys.states if key != used]
    return [*keys, "scale.n_gpus_per_node", "scale.hardware", "or the model"]


def check_fit(recipe: Recipe, plans: Sequence[StagePlan] | None = None) -> None:
    """Refuse a recipe on GPUs that its hardware cannot hold.

    Args:
        recipe: The composed recipe.
        plans: Plans of its stages; None makes them.

    Raises:
        SftrlError: with one line for each misfit. ``scale.check_fit=false`` lets the run start anyway.
    """
    if recipe.scale.backend == "cpu" or not recipe.scale.check_fit:
        return
    from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages

    try:
        faults = list(misfits(recipe, plans if plans is not None else plan_stages(recipe)))
    except UnknownArchitecture:  # a hub model that is not listed: nothing can be planned before it is there
        return
    if faults:
        raise SftrlError(
            f"{recipe.name} at scale {recipe.scale.name} does not fit:\n  "
            + "\n  ".join(dict.fromkeys(faults))
            + "\nscale.check_fit=false starts it anyway."
        )
