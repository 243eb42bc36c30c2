"""Tokens a training stage used up to each of its saved steps: the base of the compute axis."""

from __future__ import annotations

import json

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoints import list_checkpoints
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.files import read_json, read_jsonl, write_text
from sftrl_ext.reports.compute import BUFFER_RATIO_GENERAL_POINTS, flops_measured, flops_rl, flops_sft
from sftrl_ext.training.settings import TOKENS_FILE

SFT_KEYS = {"trained_tokens": "train/global_tokens"}
RL_KEYS = {
    "trained_tokens": "tokens/step_trained",
    "generated_tokens": "tokens/step_generated",
    "prefill_tokens": "tokens/step_prefill",
}


def write_tokens(
    layout: RunLayout,
    stage: str,
    kind: str,
    parameters: int,
    *,
    prefix_cache: bool = True,
    ratio: float = BUFFER_RATIO_GENERAL_POINTS,
) -> None:
    """Write ``tokens.jsonl`` of a stage: cumulative counts and FLOPs of the stage alone at each saved step.

    Args:
        layout: The run.
        stage: Name of the stage.
        kind: ``sft`` or ``rl``.
        parameters: Parameters of the model.
        prefix_cache: Whether the rollout engine reads each prompt token once, or again at every turn.
        ratio: The paper's lambda of the task; see `sftrl_ext.reports.compute.buffer_ratio`.

    Raises:
        SftrlError: if a step logged no token count.
    """
    keys = dict(SFT_KEYS if kind == "sft" else RL_KEYS)
    if kind == "rl" and not prefix_cache:
        keys["prefill_tokens"] = "tokens/step_prefill_uncached"
    logged = {int(entry["step"]): entry["data"] for entry in read_jsonl(layout.metrics(stage))}
    # Validation before the first step, or after the last, has no counts.
    logged = {step: data for step, data in logged.items() if keys["trained_tokens"] in data}
    checkpoints = list_checkpoints(layout.checkpoints(stage))
    saved = {c.step: _saved_counts(layout, stage, c.step) for c in checkpoints if c.step not in logged}
    saved = {step: totals for step, totals in saved.items() if totals}
    counts = {name: 0.0 for name in ("trained_tokens", "generated_tokens", "prefill_tokens")}
    at_step: dict[int, dict[str, float]] = {0: dict(counts)}
    for step in sorted({*logged, *saved}):
        for name, key in keys.items():
            if step in saved:
                counts[name] = saved[step][key.removeprefix("tokens/step_")]
            elif key in logged[step]:
                counts[name] += logged[step][key]
            else:
                raise SftrlError(f"{layout.metrics(stage)}: step {step} has no {key!r}.")
        at_step[step] = dict(counts)
    lines = []
    for checkpoint in checkpoints:
        if checkpoint.step not in at_step:
            raise SftrlError(f"{layout.metrics(stage)}: no line for the saved step {checkpoint.step}.")
        used = at_step[checkpoint.step]
        trained = used["trained_tokens"]
        paper = flops_sft(parameters, 0, trained)
        if kind == "rl":
            paper = flops_rl(parameters, 0, trained, buffer_ratio=ratio)
        measured = flops_measured(parameters, trained, used["generated_tokens"], used["prefill_tokens"])
        line = {"step": checkpoint.step, **{k: int(v) for k, v in used.items()}}
        lines.append(json.dumps({**line, "flops_paper": paper, "flops_measured": measured}) + "\n")
    write_text(layout.tokens(stage), "".join(lines))


def _saved_counts(layout: RunLayout, stage: str, step: int) -> dict[str, float]:
    """The totals in an RL checkpoint: verl saves a step before it logs it, and may be killed in between."""
    path = layout.checkpoints(stage) / f"global_step_{step}" / TOKENS_FILE
    return dict(read_json(path)) if path.is_file() else {}
