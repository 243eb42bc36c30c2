"""The compute axes: FLOPs from counted tokens, FLOPs by the paper's formula, and tokens.

The headline axis counts every pass of a training stage. With N parameters of the policy, M of the critic:

    6 N trained + 2 N (generated + prefill + forward) + 6 M trained_critic + 2 M forward_critic

where every epoch over a token counts, and ``forward`` are forward-only passes (old and reference
log-probabilities). Left out: pre-training, evaluation, and what activation checkpointing computes again.

The paper's formula (arXiv 2501.17161, appendix C.3), with D tokens:

    X_SFT = 6 N (D_init + D_SFT)
    X_RL  = 6 N (D_init + D_RL) + 2 N D_buffer,   D_buffer = lambda D_RL

lambda stands for the tokens that are read and generated while the buffer is filled. The paper estimates it
for each task (`TaskSpec.compute_ratio`), with its 4 epochs of PPO and a generation without a cache. So the
formula is a second axis for runs of 4 epochs, and left out for others (`paper_formula_absent`). It has no
value network, which the paper's policy holds as a head, and no forward-only passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftrl_ext.envs.task import TaskSpec, task_of_source
from sftrl_ext.runs.token_counts import TokenCount

BUFFER_RATIO = TaskSpec.compute_ratio
"""Default lambda."""
PAPER_EPOCHS = 4
"""Epochs of PPO over each buffer, to which the paper's lambda belongs."""
EPOCHS_TOLERANCE = 0.05
"""Epochs of earlier records are trained tokens over tokens read and written, which differ by a few tokens."""

RL_TOKENS = {"per_epoch": "in every epoch", "once": "once"}
"""Readings of the paper's D_RL: how often it counts a token that RL trains on. The axes of its Figures 9, 17
and of routes in words fit ``once``, that of cards in words ``per_epoch``."""

TERA = 1e12

AXES = ("counted", "paper", "tokens")
"""Names of the compute axes, in order of preference."""

AXIS_TITLES = {
    "counted": "Training compute, from counted tokens",
    "paper": "Training compute, the paper's formula",
    "tokens": "Tokens trained on, generated and read",
}


@dataclass(frozen=True)
class PaperFormula:
    """Settings of the paper's formula.

    Attributes:
        ratio: lambda of the task.
        rl_tokens: Reading of D_RL, which the paper leaves open; one of `RL_TOKENS`.
    """

    ratio: float = BUFFER_RATIO
    rl_tokens: str = "per_epoch"

    def flops(self, parameters: float, tokens: TokenCount, *, rl: bool) -> float:
        """Compute of a stage alone, without what it starts from."""
        if not rl:
            return flops_sft(parameters, 0.0, tokens.trained)
        trained = tokens.sequence if self.rl_tokens == "once" else tokens.trained
        return flops_rl(parameters, 0.0, trained, buffer_ratio=self.ratio)


def paper_formula_absent(stages: Mapping[str, TokenCount]) -> str | None:
    """The reason why the paper's formula does not apply to RL stages; None if it does.

    Args:
        stages: Name of each RL stage to its last token count.
    """
    for name, tokens in sorted(stages.items()):
        if tokens.epochs is None:
            return f"the token counts of stage `{name}` do not tell its epochs"
        if abs(tokens.epochs - PAPER_EPOCHS) > EPOCHS_TOLERANCE:
            return (
                f"its lambda belongs to {PAPER_EPOCHS} epochs over each buffer, "
                f"and stage `{name}` makes {tokens.epochs:.2g}"
            )
    return None


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
    buffer_ratio: float = BUFFER_RATIO,
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


def flops_counted(parameters: float, tokens: TokenCount, critic_parameters: float | None = None) -> float:
    """Compute in FLOPs from counted tokens: 6 a token trained on, 2 a token of any other pass, times size.

    Args:
        parameters: N, parameters of the policy.
        tokens: Counts of the stage.
        critic_parameters: M, parameters of the critic; None takes those of the policy.
    """
    # A token costs 2 FLOPs a parameter forward (a multiplication and an addition) and 4 backward. Attention
    # between tokens, which grows with the square of the length, is left out, as in the paper's formula.
    critic = parameters if critic_parameters is None else critic_parameters
    actor = 6.0 * tokens.trained + 2.0 * (tokens.generated + tokens.prefill + tokens.forward)
    return parameters * actor + critic * (6.0 * tokens.trained_critic + 2.0 * tokens.forward_critic)


def buffer_ratio(data_source: str) -> float:
    """The paper's lambda for the task of a data source, or of its first part; the default for any other."""
    task = task_of_source(data_source)
    return BUFFER_RATIO if task is None else task.compute_ratio


@dataclass(frozen=True)
class Cost:
    """Cost of training a checkpoint from the base model, on every axis.

    Attributes:
        counted: FLOPs from counted tokens; None without the model's size.
        paper: FLOPs by the paper's formula; None without the model's size, or where it does not apply.
        tokens: Tokens trained on, generated and read.
    """

    counted: float | None
    paper: float | None
    tokens: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            None if self.counted is None or other.counted is None else self.counted + other.counted,
            None if self.paper is None or other.paper is None else self.paper + other.paper,
            self.tokens + other.tokens,
        )

    def on(self, axis: str) -> float | None:
        """The cost on one axis of `AXES`."""
        return {"counted": self.counted, "paper": self.paper, "tokens": self.tokens}[axis]


def cost_of(
    parameters: float | None,
    tokens: TokenCount,
    *,
    rl: bool,
    paper: PaperFormula | None,
    critic_parameters: float | None = None,
) -> Cost:
    """Cost of the tokens of one stage; the cost of what it starts from is added to it.

    Args:
        parameters: N, or None if unknown.
        tokens: Tokens of the stage.
        rl: True if the stage generates its own training data.
        paper: The paper's formula, or None where it does not apply.
        critic_parameters: M, parameters of the critic; None takes N.
    """
    if parameters is None:
        return Cost(None, None, tokens.total)
    return Cost(
        flops_counted(parameters, tokens, critic_parameters),
        None if paper is None else paper.flops(parameters, tokens, rl=rl),
        tokens.total,
    )


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
