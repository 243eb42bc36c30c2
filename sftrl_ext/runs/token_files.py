"""Tokens a training stage used up to each of its saved steps: the base of the compute axis."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sftrl_ext.errors import SftrlError
from sftrl_ext.runs.checkpoints import list_checkpoints
from sftrl_ext.runs.layout import TOKENS_FILE, RunLayout
from sftrl_ext.files import read_json, read_jsonl, write_text
from sftrl_ext.runs.compute import PaperFormula, flops_counted, paper_formula_absent
from sftrl_ext.runs.token_counts import NAMES, SFT_REFERENCE, SFT_TOKENS, TokenCount, counts_of

REQUIRED = ("trained", "generated", "prefill", "forward", "trained_critic")
"""Counts that every logged RL step has; `counts_of` completes those of earlier versions."""


def write_tokens(
    layout: RunLayout,
    stage: str,
    kind: str,
    parameters: int,
    *,
    critic_parameters: int | None = None,
    paper: PaperFormula | None = None,
) -> None:
    """Write ``tokens.jsonl`` of a stage: cumulative counts and FLOPs of the stage alone at each saved step.

    ``flops_paper`` is null where the paper's formula does not apply.

    Args:
        layout: The run.
        stage: Name of the stage.
        kind: ``sft`` or ``rl``.
        parameters: Parameters of the model.
        critic_parameters: Parameters of the critic; None takes those of the model.
        paper: The paper's formula for the task; by default that of GeneralPoints.

    Raises:
        SftrlError: if a step logged no token count.
    """
    path = layout.metrics(stage)
    first = SFT_TOKENS if kind == "sft" else "tokens/step_trained"
    logged = {int(entry["step"]): entry["data"] for entry in read_jsonl(path)}
    # Validation before the first step, or after the last, has no counts.
    logged = {step: data for step, data in logged.items() if first in data}
    checkpoints = list_checkpoints(layout.checkpoints(stage))
    saved = {c.step: _saved_counts(layout, stage, c.step) for c in checkpoints if c.step not in logged}
    saved = {step: totals for step, totals in saved.items() if totals}
    count = TokenCount()
    at_step: dict[int, TokenCount] = {0: count}
    for step in sorted({*logged, *saved}):
        if step in saved:
            count = counts_of(saved[step])
        elif kind == "sft":
            count += _sft_step(logged[step])
        else:
            count += _rl_step(logged[step], f"{path}: step {step}")
        at_step[step] = count
    lines = []
    formula = paper or PaperFormula()
    for checkpoint in checkpoints:
        if checkpoint.step not in at_step:
            raise SftrlError(f"{path}: no line for the saved step {checkpoint.step}.")
        used = at_step[checkpoint.step]
        applies = kind == "sft" or paper_formula_absent({stage: used}) is None
        flops = {
            "flops_counted": flops_counted(parameters, used, critic_parameters),
            "flops_paper": formula.flops(parameters, used, rl=kind == "rl") if applies else None,
        }
        lines.append(json.dumps({"step": checkpoint.step, **used.as_line(), **flops}) + "\n")
    write_text(layout.tokens(stage), "".join(lines))


def write_given_tokens(
    layout: RunLayout, stage: str, parameters: int, trained: int, paper: PaperFormula | None = None
) -> None:
    """Write ``tokens.jsonl`` of a model that came trained: its tokens at step 0.

    Args:
        layout: The run.
        stage: Name of the stage that puts the model into the run.
        parameters: Parameters of the model.
        trained: Tokens it was trained on.
        paper: The paper's formula for the task; by default that of GeneralPoints.
    """
    used = TokenCount(trained=trained, sequence=trained)
    flops = {
        "flops_counted": flops_counted(parameters, used),
        "flops_paper": (paper or PaperFormula()).flops(parameters, used, rl=False),
    }
    write_text(layout.tokens(stage), json.dumps({"step": 0, **used.as_line(), **flops}) + "\n")


def _sft_step(data: Mapping[str, float]) -> TokenCount:
    """Tokens of one SFT step; with an anchored loss the start model reads them too."""
    tokens = data[SFT_TOKENS]
    return TokenCount(trained=tokens, forward=tokens if SFT_REFERENCE in data else 0.0, sequence=tokens)


def _rl_step(data: Mapping[str, float], where: str) -> TokenCount:
    missing = [f"tokens/step_{name}" for name in REQUIRED if f"tokens/step_{name}" not in data]
    if missing:
        raise SftrlError(f"{where} has no {missing[0]!r}.")
    return counts_of({name: data[f"tokens/step_{name}"] for name in NAMES if f"tokens/step_{name}" in data})


def _saved_counts(layout: RunLayout, stage: str, step: int) -> dict[str, float]:
    """The totals in an RL checkpoint: verl saves a step before it logs it, and may be killed in between."""
    path = layout.checkpoints(stage) / f"global_step_{step}" / TOKENS_FILE
    return dict(read_json(path)) if path.is_file() else {}
