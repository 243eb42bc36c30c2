"""The compute axis: what a checkpoint cost, by the paper's formula and by the tokens that were counted.

Formulas of the paper (arXiv 2501.17161, appendix C.3), with N parameters and D tokens:

    X_SFT = 6 N (D_init + D_SFT)
    X_RL  = 6 N (D_init + D_RL) + 2 N D_buffer,   D_buffer = lambda D_RL

lambda stands for the tokens that are read and generated while the buffer is filled. The paper estimates it:
6 for GeneralPoints, 5.1 for V-IRL. The measured form has the counted tokens in its place. Left out of both,
as in the paper: pre-training, evaluation, the value network, and forward passes for old log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from sftrl_ext.reports.runfiles import TokenCount

BUFFER_RATIO_GENERAL_POINTS = 6.0
BUFFER_RATIO_VIRL = 5.1

AXES = ("paper", "measured", "tokens")
"""Names of the compute axes, in order of preference."""

AXIS_TITLES = {
    "paper": "Training compute, the paper's formula",
    "measured": "Training compute, from counted tokens",
    "tokens": "Tokens trained on, generated and read",
}


def flops_sft(parameters: float, init_tokens: float, sft_tokens: float) -> float:
    """Compute of an SFT checkpoint in FLOPs: 6 N (D_init + D_SFT).

    Args:
        parameters: N, parameters of the model.
        init_tokens: D_init, tokens trained on from the base model to the shared start.
        sft_tokens: D_SFT, tokens trained on since, every pass counted.
    """
    return 6.0 * parameters * (init_tokens + sft_tokens)


def flops_rl(
    parameters: float,
    init_tokens: float,
    rl_tokens: float,
    buffer_tokens: float | None = None,
    *,
    buffer_ratio: float = BUFFER_RATIO_GENERAL_POINTS,
) -> float:
    """Compute of an RL checkpoint in FLOPs: 6 N (D_init + D_RL) + 2 N D_buffer.

    Args:
        parameters: N, parameters of the model.
        init_tokens: D_init, tokens trained on from the base model to the shared start.
        rl_tokens: D_RL, tokens trained on since, every epoch over the buffer counted.
        buffer_tokens: D_buffer; None means the paper's estimate ``buffer_ratio * rl_tokens``.
        buffer_ratio: lambda.
    """
    if buffer_tokens is None:
        buffer_tokens = buffer_ratio * rl_tokens
    return 6.0 * parameters * (init_tokens + rl_tokens) + 2.0 * parameters * buffer_tokens


def flops_measured(parameters: float, trained: float, generated: float = 0.0, prefill: float = 0.0) -> float:
    """Compute in FLOPs from counted tokens: 6 N trained + 2 N (generated + prefill).

    Args:
        parameters: N, parameters of the model.
        trained: Tokens that went through a forward and a backward pass.
        generated: Tokens sampled, one forward pass each.
        prefill: Prompt tokens read before sampling, one forward pass each (none where a cache served them).
    """
    return 6.0 * parameters * trained + 2.0 * parameters * (generated + prefill)


def buffer_ratio(data_source: str) -> float:
    """The paper's lambda for a task, told by the name of its data source ("gp_l/id", "virl_l/id")."""
    return BUFFER_RATIO_VIRL if data_source.lower().startswith("virl") else BUFFER_RATIO_GENERAL_POINTS


@dataclass(frozen=True)
class Cost:
    """What it took to train a checkpoint from the base model, on every axis.

    Attributes:
        paper: FLOPs by the paper's formula; None without the model's size.
        measured: FLOPs from counted tokens; None without the model's size.
        tokens: Tokens trained on, generated and read.
    """

    paper: float | None
    measured: float | None
    tokens: float

    def __add__(self, other: Cost) -> Cost:
        known = self.paper is not None and other.paper is not None
        return Cost(
            (self.paper or 0.0) + (other.paper or 0.0) if known else None,
            (self.measured or 0.0) + (other.measured or 0.0) if known else None,
            self.tokens + other.tokens,
        )

    def on(self, axis: str) -> float | None:
        """The cost on one axis of `AXES`."""
        return {"paper": self.paper, "measured": self.measured, "tokens": self.tokens}[axis]


def cost_of(parameters: float | None, tokens: TokenCount, *, rl: bool, ratio: float) -> Cost:
    """Cost of the tokens of one stage; the cost of what it starts from is added to it.

    Args:
        parameters: N, or None if unknown.
        tokens: Tokens of the stage.
        rl: Whether the stage generates its own training data.
        ratio: The paper's lambda.
    """
    if parameters is None:
        return Cost(None, None, tokens.total)
    if rl:
        paper = flops_rl(parameters, 0.0, tokens.trained, buffer_ratio=ratio)
    else:
        paper = flops_sft(parameters, 0.0, tokens.trained)
    measured = flops_measured(parameters, tokens.trained, tokens.generated, tokens.prefill)
    return Cost(paper, measured, tokens.total)


def scaled(largest: float, axis: str) -> tuple[float, str]:
    """The divisor and the unit that make ``largest`` readable on ``axis``: ``(1e15, "PFLOP")``."""
    steps = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    power = 0
    while power < len(steps) - 1 and largest >= 1000.0 ** (power + 1):
        power += 1
    prefix = steps[power]
    if axis == "tokens":
        return 1000.0**power, f"{'B' if prefix == 'G' else prefix} tokens".strip()
    return 1000.0**power, f"{prefix}FLOP"


def readable(value: float, axis: str) -> str:
    """A cost in words: ``"12.3 PFLOP"``."""
    divisor, unit = scaled(value, axis)
    return f"{value / divisor:.3g} {unit}"
