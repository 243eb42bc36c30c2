"""``tokens.jsonl`` of a training stage: tokens and FLOPs at each saved step, for the compute axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import jsonl, read_json, read_jsonl, write_text
from sftrl_ext.runs.checkpoints import list_checkpoints, step_folder
from sftrl_ext.runs.compute import PaperFormula, flops_counted, paper_formula_absent
from sftrl_ext.runs.layout import TOKENS_FILE, RunLayout
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.typed_json import Amount, Count, read_records

SFT_TOKENS = "train/global_tokens"
"""Tokens of one SFT step, as verl logs them."""
SFT_REFERENCE = "train/kl_start"
"""Logged by SFT steps that also read their tokens with the start model."""


@dataclass(frozen=True)
class TokenLine:
    """One line: cumulative counts and FLOPs of the stage alone at a saved step.

    Attributes:
        flops_paper: None where the paper's formula does not apply.
    """

    step: Count
    trained_tokens: Amount
    generated_tokens: Amount
    prefill_tokens: Amount
    forward_tokens: Amount
    trained_critic_tokens: Amount = 0.0
    forward_critic_tokens: Amount = 0.0
    sequence_tokens: Amount = 0.0
    flops_counted: Amount | None = None
    flops_paper: Amount | None = None


def read_token_counts(path: Path, on_torn_tail: Callable[[], None] | None = None) -> dict[int, TokenCount]:
    """Read ``tokens.jsonl`` of a stage: step to cumulative counts; of a step written twice the later line.

    Raises:
        SftrlError: naming file, line and key, if a line is malformed.
    """
    lines = (line for _, line in read_records(TokenLine, path, on_torn_tail))
    return {line.step: TokenCount.from_names(vars(line), "_tokens") for line in lines}


def write_tokens(
    layout: RunLayout,
    stage: str,
    kind: str,
    parameters: int,
    *,
    critic_parameters: int | None = None,
    paper: PaperFormula | None = None,
    sampled: TokenCount | None = None,
) -> None:
    """Write ``tokens.jsonl`` of a stage: cumulative counts and FLOPs of the stage alone at each saved step.

    ``flops_paper`` is null where the paper's formula does not apply.

    Args:
        layout: The run.
        stage: Name of the stage.
        kind: ``sft`` or ``rl``.
        parameters: Parameters of the model.
        critic_parameters: Parameters of the critic; None takes those of the model.
        paper: The paper's formula for the task; by default with the default lambda.
        sampled: Tokens of sampling its rows, before its first step.

    Raises:
        SftrlError: if a step logged no token count.
    """
    path = layout.metrics(stage)
    first = SFT_TOKENS if kind == "sft" else "tokens/step_trained"
    logged = {int(entry["step"]): entry["data"] for entry in read_jsonl(path)}
    # Validation before the first step, or after the last, has no counts.
    logged = {step: data for step, data in logged.items() if first in data}
    checkpoints = list_checkpoints(layout.checkpoints(stage))
    unlogged = (c.step for c in checkpoints if c.step not in logged)
    saved = {step: count for step in unlogged if (count := _saved_count(layout, stage, step)) is not None}
    count = sampled or TokenCount()
    at_step: dict[int, TokenCount] = {0: count}
    for step in sorted({*logged, *saved}):
        # The totals of a checkpoint replace the sum so far: its step was saved, but a kill kept it from being
        # logged.
        if step in saved:
            count = saved[step] + (sampled or TokenCount())
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
        lines.append({"step": checkpoint.step, **used.as_line(), **flops})
    write_text(layout.tokens(stage), jsonl(lines))


def write_sampled_tokens(layout: RunLayout, stage: str, parameters: int, tokens: TokenCount) -> None:
    """Write ``tokens.jsonl`` of a stage that samples rows: its tokens at step 0."""
    line = {"step": 0, **tokens.as_line(), "flops_counted": flops_counted(parameters, tokens)}
    write_text(layout.tokens(stage), jsonl([line]))


def sampled_tokens(layout: RunLayout, stage: str) -> TokenCount:
    """Tokens of a stage that sampled rows."""
    return read_token_counts(layout.tokens(stage))[0]


def write_given_tokens(
    layout: RunLayout, stage: str, parameters: int, trained: int, paper: PaperFormula | None = None
) -> None:
    """Write ``tokens.jsonl`` of a model that came trained: its tokens at step 0.

    Args:
        layout: The run.
        stage: Name of the stage that puts the model into the run.
        parameters: Parameters of the model.
        trained: Tokens it was trained on.
        paper: The paper's formula for the task; by default with the default lambda.
    """
    used = TokenCount(trained=trained, sequence=trained)
    flops = {
        "flops_counted": flops_counted(parameters, used),
        "flops_paper": (paper or PaperFormula()).flops(parameters, used, rl=False),
    }
    write_text(layout.tokens(stage), jsonl([{"step": 0, **used.as_line(), **flops}]))


def _sft_step(data: Mapping[str, float]) -> TokenCount:
    """Tokens of one SFT step; with an anchored loss the start model reads them too."""
    tokens = data[SFT_TOKENS]
    return TokenCount(trained=tokens, forward=tokens if SFT_REFERENCE in data else 0.0, sequence=tokens)


def _rl_step(data: Mapping[str, float], source: str) -> TokenCount:
    steps = {key.removeprefix("tokens/step_"): value for key, value in data.items()}
    return _count(steps, source, "tokens/step_")


def _saved_count(layout: RunLayout, stage: str, step: int) -> TokenCount | None:
    """The totals in an RL checkpoint: verl saves a step before it logs it, and may be killed in between."""
    path = step_folder(layout.checkpoints(stage), step) / TOKENS_FILE
    return _count(read_json(path), str(path)) if path.is_file() else None


def _count(counts: Mapping[str, float], source: str, prefix: str = "") -> TokenCount:
    try:
        return TokenCount.from_names(counts)
    except KeyError as error:
        raise SftrlError(f"{source} has no {prefix + error.args[0]!r}.") from None
