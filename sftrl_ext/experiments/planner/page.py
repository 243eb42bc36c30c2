"""Generator of ``docs/budget.md``: planned resources of every recipe at the GPU scales."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from sftrl_ext.experiments.planner import calibration, fit
from sftrl_ext.experiments.planner.hardware import GIB, HARDWARE, hardware_of
from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages
from sftrl_ext.experiments.planner.table import assumptions, memory_table, stage_table
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.files import write_text
from sftrl_ext.paths import recipes_dir
from sftrl_ext.reports.pages.tables import Table

_PINNED = ("scale.attention=sdpa",)
"""Settings that depend on the planning machine, pinned: the costlier attention, without flash-attn."""

SCALES = ("gpu", "node")
"""Scales on the page; `cluster` makes the steps of `node` on more nodes."""

_HEAD = """# Budget

Planned memory, disk, tokens, FLOPs and hours of every recipe on named hardware. For one recipe, with its
overrides, `sftrl plan <recipe> --scale <scale>` prints the same. For a stage that does not fit, it and
`sftrl run` fail with the key to change; `scale.check_fit=false` turns this check off.

| Key | Meaning |
| :-- | :-- |
| `scale.hardware` | {hardware}; null: the first |
| `scale.host_memory_gb` | host memory of a node; null: 256 GB per device |
| `scale.disk_gb` | free disk of the run folder; null: not checked |
| `scale.offload` | `none`; `idle`: weights and optimizer states of idle models on the host; \
`always`: also those of the model in training |
| `budget.<stage>.micro_batch_size` | rows of a micro-batch; for RL, rows of maximum length |

The plan uses at most {headroom:.0%} of a device, host or disk. The peak of a device is that of its largest
phase: verl keeps actor, critic, reference and vLLM on the same devices. Micro-batches are assumed at their
token limit. "As verl writes" is the disk space with training shards and float32 weights of every saved step
(`scale.training_state=all` keeps the shards). GB and TB are decimal; GiB of a device are binary, as
`nvidia-smi` shows them.

The reference pass of RL measures the divergence from the start and trains nothing. {reference}

This page is generated: `python -m sftrl_ext.experiments.planner.page`.
"""


def budget_page(results: Path) -> str:
    """The text of ``docs/budget.md``.

    Args:
        results: Folder of the results files.
    """
    hardware = ", ".join(f"`{name}`" for name in HARDWARE if name != "cpu")
    recipes = {scale: [load_recipe(path, scale, _PINNED) for path in distinct_recipes()] for scale in SCALES}
    reference = _reference(recipes["node"][0])
    lines = [_HEAD.format(hardware=hardware, headroom=fit.HEADROOM, reference=reference)]
    for scale in SCALES:
        lines += [f"## All recipes at `{scale}`\n", _summary(recipes[scale]).to_markdown(), ""]
    lines += _calibration(results)
    for recipe in recipes["node"]:
        lines += [f"## {recipe.name} at `node`\n", *_details(recipe)]
    return "\n".join(lines).rstrip() + "\n"


def _reference(recipe: Recipe) -> str:
    """Cost of the reference pass of a recipe's RL."""
    plan = next(plan for plan in plan_stages(recipe) if plan.kind == "rl")
    share = plan.work.flops["reference"] / plan.work.total_flops
    return (
        f"It is {share:.0%} of the FLOPs of RL in {recipe.name} at `{recipe.scale.name}`, and its weights "
        f"are {plan.host['offloaded'] / 1e9:.0f} GB on the host; so it is kept. To turn it off: "
        "`verl_ppo=['actor_rollout_ref.actor.use_kl_loss=false']`."
    )


def _summary(recipes: list[Recipe]) -> Table:
    header = [
        "Recipe", "Model", "Hardware", "Peak in", "GiB on a device", "Host GB", "Disk TB",
        "As verl writes", "Trained Mtok", "Generated Mtok", "EFLOP", "Hours",
    ]  # fmt: skip
    rows = []
    for recipe in recipes:
        plans = plan_stages(recipe)
        hardware, scale = hardware_of(recipe), recipe.scale
        worst = max((plan for plan in plans if plan.kind != "eval"), key=lambda plan: plan.peak.total)
        count = scale.nnodes * scale.n_gpus_per_node
        rows.append([
            recipe.name,
            recipe.model.name,
            f"{count} x {hardware.name}",
            f"{worst.stage.partition('-lr')[0]}: {worst.peak.name}",
            f"{worst.peak.total / GIB:.1f} of {hardware.memory / GIB:.1f}",
            f"{max(plan.host_total for plan in plans) / 1e9:.0f}",
            f"{sum(plan.disk[1] for plan in plans) / 1e12:.2f}",
            f"{sum(plan.disk[2] for plan in plans) / 1e12:.2f}",
            f"{sum(plan.work.trained for plan in plans) / 1e6:.0f}",
            f"{sum(plan.work.generated for plan in plans) / 1e6:.1f}",
            f"{sum(plan.work.total_flops for plan in plans) / 1e18:.3g}",
            f"{sum(plan.work.hours for plan in plans):.1f}",
        ])  # fmt: skip
    return Table(header, rows, text_columns=4)


def _calibration(results: Path) -> list[str]:
    errors = list(calibration.stage_errors(results))
    ratios = [error.planned_s / error.wall_s for error in errors]
    memory = [error.planned_mib / error.peak_mib for error in errors if error.stage != "eval"]
    compute = [error.planned / error.counted for error in calibration.counted_errors(results)]
    authors = calibration.authors_update(cache=False).hours
    cached = calibration.authors_update(cache=True)
    rows = [
        [
            error.run, error.stage, f"{error.wall_s:.0f}", f"{error.planned_s:.0f}",
            f"{error.planned_s / error.wall_s:.2f}", f"{error.peak_mib:.0f}", f"{error.planned_mib:.0f}",
            f"{error.planned_mib / error.peak_mib:.2f}",
        ]
        for error in errors
    ]  # fmt: skip
    header = [
        "Results", "Stage", "Wall s", "Planned", "Ratio", "Peak MiB", "Planned", "Ratio",
    ]  # fmt: skip
    seconds = sum(value for phase, value in cached.seconds.items() if phase != "start")
    return [
        "## Accuracy of the plan\n",
        f"**Measured stages.** {len(errors)} stages of laptop runs, to which the efficiencies were fitted: "
        f"the ratio of planned to measured time is {min(ratios):.2f} to {max(ratios):.2f} "
        f"(median {median(ratios):.2f}; the lowest ran beside other work), of memory of the process tree "
        f"{min(memory):.2f} to {max(memory):.2f} without the evaluation.\n",
        f"**Counted compute.** At the last checkpoints of {len(compute)} arms of those runs, planned compute "
        f"is {min(compute):.2f} to {max(compute):.2f} times the one from the tokens that the run counted.\n",
        "**Measured passes.** Activations and logits of a small Llama's passes, forward and backward, on a "
        "CPU, with verl's own log-probabilities and entropy, are planned 0.9 to 1.25 times as large as they "
        "are (`tests/experiments/planner/test_calibration.py`).\n",
        "**The authors' update.** They report one to two hours for an update of 2048 responses on eight "
        f"GPUs, with generation without a KV cache: planned {authors:.1f} hours. The same with vLLM's "
        f"cache: {seconds / 60:.1f} minutes.\n",
        "No run of this code on a GPU is recorded: hours on GPUs are within a factor of about "
        f"{calibration.GPU_ERROR.time:.0f}.\n",
        Table(header, rows, text_columns=2).to_markdown(),
        "",
    ]


def _details(recipe: Recipe) -> Iterator[str]:
    plans = plan_stages(recipe)
    yield stage_table(plans).to_markdown()
    yield ""
    yield "Device memory by phase, GiB:\n"
    yield memory_table(plans).to_markdown()
    yield ""
    for line in assumptions(recipe, plans):
        if not line.startswith(("device memory", "times are")):  # once, above
            yield f"- {line}"
    yield ""


if __name__ == "__main__":
    root = recipes_dir().parent
    write_text(root / "docs" / "budget.md", budget_page(root / "results"))
