"""Tables of a plan: one line a stage, one line a phase of memory, and the assumptions behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner.architectures import architecture_of
from sftrl_ext.experiments.planner.calibration import CPU_ERROR, GPU_ERROR
from sftrl_ext.experiments.planner.ends import arm_ends, ends_sentence, ends_table
from sftrl_ext.experiments.planner.hardware import GIB, hardware_of
from sftrl_ext.experiments.planner.memory import PARTS
from sftrl_ext.reports.pages.tables import Table

if TYPE_CHECKING:
    from sftrl_ext.experiments.planner.stages.stage_plan import StagePlan
    from sftrl_ext.experiments.recipe.schema import Recipe

STAGE_HEADER = (
    "Stage", "Peak on a device", "GiB", "Host GB", "Disk TB", "As verl writes, TB", "Pictures GB",
    "Trained Mtok", "Generated Mtok", "EFLOP", "Hours",
)  # fmt: skip


def budget_lines(recipe: Recipe, plans: Sequence[StagePlan]) -> Iterator[str]:
    """A recipe's plan as Markdown, line by line."""
    hardware, scale = hardware_of(recipe), recipe.scale
    where = f"{scale.nnodes * scale.n_gpus_per_node} x {hardware.name}"
    if hardware.memory:
        where += f" of {hardware.memory / GIB:.1f} GiB"
    else:
        where = f"{scale.nnodes * scale.n_gpus_per_node} ranks on a CPU"
    parameters = architecture_of(recipe.model).parameters
    model = f"{recipe.model.name} ({parameters / 1e9:.3g} B parameters)"
    yield f"{recipe.name} at {scale.name}: {model} on {where}"
    yield ""
    yield from stage_table(plans).to_markdown().splitlines()
    yield ""
    yield from memory_table(plans).to_markdown().splitlines()
    yield ""
    ends = arm_ends(recipe, plans)
    yield from ends_table(ends).to_markdown().splitlines()
    yield ""
    yield f"- {ends_sentence(recipe, ends)}."
    for line in assumptions(recipe, plans):
        yield f"- {line}"


def stage_table(plans: Sequence[StagePlan]) -> Table:
    """Memory, disk, tokens, FLOPs and hours of each stage, and their sums."""
    rows = [
        [
            plan.stage,
            plan.peak.name,
            f"{plan.peak.total / GIB:.1f}",
            f"{plan.host_total / 1e9:.0f}" if plan.host_total >= 1e10 else f"{plan.host_total / 1e9:.1f}",
            _number(plan.disk[1] / 1e12),
            _number(plan.disk[2] / 1e12),
            _number(plan.traffic / 1e9),
            _number(plan.work.trained / 1e6),
            _number(plan.work.generated / 1e6),
            _number(plan.work.total_flops / 1e18),
            _number(plan.work.hours),
        ]
        for plan in plans
    ]
    total = [
        "sum", "", "", "",
        *(_number(sum(plan.disk[part] for plan in plans) / 1e12) for part in (1, 2)),
        "",
        _number(sum(plan.work.trained for plan in plans) / 1e6),
        _number(sum(plan.work.generated for plan in plans) / 1e6),
        _number(sum(plan.work.total_flops for plan in plans) / 1e18),
        _number(sum(plan.work.hours for plan in plans)),
    ]  # fmt: skip
    return Table(STAGE_HEADER, [*rows, total], text_columns=2)


def memory_table(plans: Sequence[StagePlan]) -> Table:
    """Device memory in GiB by phase and part; stages whose phases are the same are one."""
    rows: dict[tuple[str, ...], str] = {}
    for plan in plans:
        for phase in plan.phases:
            sizes = (
                *(f"{phase.parts.get(part, 0.0) / GIB:.2f}" for part in PARTS),
                f"{phase.total / GIB:.1f}",
            )
            key = (phase.name, *sizes)
            rows[key] = plan.stage if key not in rows else f"{rows[key]}, {plan.stage}"
    header = ["Phase", "Stages", *(_title(part) for part in PARTS), "GiB"]
    return Table(header, [[key[0], stages, *key[1:]] for key, stages in rows.items()], text_columns=2)


def assumptions(recipe: Recipe, plans: Sequence[StagePlan]) -> Iterator[str]:
    """Inputs that a plan rests on."""
    seen: set[str] = set()
    for plan in plans:
        lengths = plan.workload
        if plan.kind == "sft":
            text = f"a row of SFT has {lengths.sft_row:.0f} tokens"
        else:
            text = (
                f"a row of RL has a prompt of {lengths.prompt:.0f} tokens and {lengths.turns:.1f} answers of "
                f"{lengths.answer:.0f} with {lengths.feedback:.0f} of feedback between them; an episode has "
                f"{lengths.rows:.0f} rows"
            )
        if text not in seen:
            seen.add(text)
            yield f"{plan.stage}: {text}."
    yield (
        "device memory is for micro-batches at their token limit, with up to 90 % of a device planned; "
        "others: what further models leave on the device"
    )
    error = CPU_ERROR if recipe.scale.backend == "cpu" else GPU_ERROR
    yield f"times are within a factor of about {error.time:.1f}, {error.source}; memory {error.memory}"


def _number(value: float) -> str:
    if value == 0:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _title(part: str) -> str:
    return "KV cache" if part == "kv_cache" else part.capitalize()
