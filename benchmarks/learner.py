"""Training side of the plain loops: a model in float32, AdamW, and PPO's clipped objective over turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.processes import average_gradients
from sftrl_ext.hf_folder import load_model

MICRO_ROWS = 64
"""Rows of one forward and backward pass, as many as the recipe's token limit lets through."""


@dataclass(frozen=True)
class SampledRows:
    """Prompts and responses of one update; the tensors are ``[rows, response tokens]``, padded with zeros.

    Attributes:
        prompts: Tokens of each row's prompt.
        responses: Tokens of each row's response, feedback between its turns included.
        log_probs: Log-probabilities under the policy that sampled them.
        turn_ids: 1, 2, .. for the tokens of a turn, else 0.
        advantages: The same at every token of a turn.
    """

    prompts: Sequence[list[int]]
    responses: Sequence[list[int]]
    log_probs: Tensor
    turn_ids: Tensor
    advantages: Tensor


class Learner:
    """One rank's copy of a policy, which the ranks train together.

    Args:
        folder: Hugging Face folder to start from.
        lr: Learning rate.
        ranks: Processes that average their gradients.
    """

    def __init__(self, folder: Path, lr: float, ranks: int = 1) -> None:
        self.ranks = ranks
        self.model = load_model(folder, torch.float32).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.0)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters by name, for an engine."""
        return ((name, value.detach()) for name, value in self.model.named_parameters())

    def update(self, rows: SampledRows, turns: float) -> None:
        """Make one optimizer step on the mean over so many turns of this rank."""
        ids = [
            torch.tensor(prompt + response)
            for prompt, response in zip(rows.prompts, rows.responses, strict=True)
        ]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for first in range(0, len(order), MICRO_ROWS):
            part = order[first : first + MICRO_ROWS]
            log_probs = self.log_probs([ids[row] for row in part], [len(rows.responses[row]) for row in part])
            width = log_probs.shape[1]
            old, gain, turn_ids = (
                tensor[part, :width] for tensor in (rows.log_probs, rows.advantages, rows.turn_ids)
            )
            (turn_loss(log_probs, old, gain, turn_ids) / turns).backward()
        average_gradients(self.model, self.ranks)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def log_probs(self, ids: list[Tensor], responses: list[int]) -> Tensor:
        """Log-probabilities of the response tokens of some rows. Shape ``[rows, longest response]``."""
        batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        length = torch.tensor([len(row) for row in ids])
        mask = torch.arange(batch.shape[1]) < length[:, None]
        logits = self.model(batch, attention_mask=mask.long()).logits[:, :-1]
        chosen = logits.log_softmax(-1).gather(-1, batch[:, 1:, None])[..., 0]
        first = length - torch.tensor(responses) - 1
        columns = (first[:, None] + torch.arange(max(responses))).clamp(max=chosen.shape[1] - 1)
        return chosen.gather(1, columns)


def turn_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, turn_ids: Tensor) -> Tensor:
    """Sum over turns of PPO's clipped objective with one ratio per turn. All ``[rows, tokens]``."""
    # Its module imports verl, which has no place in the process that measures TRL.
    from sftrl_ext.training.policy_loss import turn_log_ratio

    ratio, is_last = turn_log_ratio(log_probs, old, turn_ids)
    ratio = ratio.exp()
    losses = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.2) * advantages)
    return (losses * is_last).sum()


def pad(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of different lengths as one tensor, with zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
