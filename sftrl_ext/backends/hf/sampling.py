"""Batched sampling of the next token, with sampling parameters of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sftrl_ext.errors import SftrlError


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one response. The names and the meaning of -1 and 0 are vLLM's.

    Raises:
        SftrlError: if a value is outside its range.
    """

    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probabilities sum to at least this; 1 keeps all."""
    top_k: int = -1
    """Keep the k most probable tokens; 0 or less keeps all."""
    max_tokens: int = 16
    """Upper bound on generated tokens, the stop token included."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the response, beside the model's own end-of-sequence tokens."""
    ignore_eos: bool = False
    """Do not stop at the model's own end-of-sequence tokens."""
    seed: int | None = None
    """With a seed the response depends on nothing but the weights, the prompt and the seed."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of the tokens that the response has."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token for every time that the response has it."""
    logprobs: int = 0
    """How many of the most probable tokens are reported at every place."""

    def __post_init__(self) -> None:
        ranges = (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "-2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "-2 to 2"),
            ("logprobs", self.logprobs >= 0, "0 or more"),
        )
        for name, valid, expected in ranges:
            if not valid:
                raise SftrlError(f"sampling parameter {name}={getattr(self, name)!r}: expected {expected}.")


class Constraint(Protocol):
    """What a response may go on with, such as a grammar."""

    def allowed(self) -> Tensor:
        """Mask over the vocabulary of the tokens that may come next; one at least. Shape (at most V,)."""
        ...

    def accept(self, token: int) -> None:
        """Go on by a token that was sampled."""
        ...


class BatchSampler:
    """Samples from a batch of logits; built once per change of the batch.

    Args:
        params: One entry per row.
        banned: Boolean mask over the vocabulary of tokens never to sample, or None. Shape (V,).
        written: The tokens of each row's response, which may grow; needed by penalties.
        constraints: Of each row, or None where a row has none.
    """

    def __init__(
        self,
        params: Sequence[Sampling],
        banned: Tensor | None = None,
        written: Sequence[list[int]] | None = None,
        constraints: Sequence[Constraint | None] = (),
    ) -> None:
        self.greedy = torch.tensor([p.temperature == 0 for p in params])
        # A greedy row keeps temperature 1, so that its log-probabilities are the model's own.
        self.temperature = torch.tensor([[p.temperature or 1.0] for p in params], dtype=torch.float32)
        self.all_greedy = bool(self.greedy.all())
        self.any_greedy = bool(self.greedy.any())
        self.unit_temperature = bool((self.temperature == 1).all())
        self.banned = banned if banned is not None and bool(banned.any()) else None
        self.cut = [i for i, p in enumerate(params) if p.temperature > 0 and (p.top_p < 1 or p.top_k > 0)]
        self.top_p = torch.tensor([[params[i].top_p] for i in self.cut])
        # Within the range of a tensor, whatever a caller means by "all".
        self.top_k = torch.tensor([[max(-1, min(params[i].top_k, 2**31))] for i in self.cut])
        self.reported = [(i, p.logprobs) for i, p in enumerate(params) if p.logprobs]
        self.penalised = [
            (i, p, written[i])
            for i, p in enumerate(params)
            if written is not None and (p.presence_penalty or p.frequency_penalty)
        ]
        self.constrained = [(i, c) for i, c in enumerate(constraints) if c is not None]
        self.changes_rows = bool(self.cut or self.penalised or self.constrained)

    def distribution(self, logits: Tensor) -> Tensor:
        """Log-probabilities to sample from.

        Args:
            logits: Shape (B, V).

        Returns:
            ``log_softmax(logits / temperature)``, the penalties subtracted, over the tokens that the ban, the
            constraints, top-k and top-p leave. Without these it is what the trainer computes. Shape (B, V).
        """
        logits = logits.float()
        if self.changes_rows:
            # The caller's logits stay as they are.
            logits = logits.clone()
        for i, params, written in self.penalised:
            tokens, counts = np.unique(np.array(written, dtype=np.int64), return_counts=True)
            times = torch.as_tensor(counts, dtype=torch.float32, device=logits.device)
            logits[i, tokens] -= params.presence_penalty + params.frequency_penalty * times
        if not self.unit_temperature:
            logits = logits / self.temperature
        if self.banned is not None:
            logits = logits.masked_fill(self.banned, -torch.inf)
        for i, constraint in self.constrained:
            allowed = constraint.allowed().to(logits.device)
            logits[i, : len(allowed)].masked_fill_(~allowed, -torch.inf)
            logits[i, len(allowed) :] = -torch.inf
        if self.cut:
            # Only the rows that need it are sorted.
            logits[self.cut] = self._keep_top(logits[self.cut])
        return logits.log_softmax(-1)

    def sample(self, log_probs: Tensor, uniform: np.ndarray) -> tuple[Tensor, Tensor]:
        """Sample one token per row of a `distribution`.

        Args:
            log_probs: Shape (B, V).
            uniform: One number in [0, 1) per row; a row's token is a function of its logits and its number
                alone, so that a row's result does not depend on the rows beside it. Shape (B,).

        Returns:
            Tokens (B,) and their log-probabilities (B,).
        """
        if self.all_greedy:
            tokens = log_probs.argmax(-1)
        else:
            # Inverse of the cumulative distribution, in double precision: a token of probability zero
            # adds nothing to the sum and is never the first to exceed the threshold.
            cumulative = log_probs.exp().double().cumsum(-1)
            threshold = torch.as_tensor(uniform, device=log_probs.device)[:, None] * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
            # Rounding can put the threshold at the very end of the sum.
            tokens.clamp_(max=log_probs.shape[-1] - 1)
            if self.any_greedy:
                tokens = torch.where(self.greedy, log_probs.argmax(-1), tokens)
        return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]

    def most_probable(self, log_probs: Tensor) -> dict[int, tuple[tuple[int, float], ...]]:
        """The most probable tokens of the rows that report some, most probable first, by row."""
        result = {}
        for i, count in self.reported:
            top = log_probs[i].topk(min(count, log_probs.shape[-1]))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            # Fewer may be left than are asked for.
            result[i] = tuple(pair for pair in pairs if pair[1] > -np.inf)
        return result

    def _keep_top(self, logits: Tensor) -> Tensor:
        """Set the logits outside top-k, and then outside top-p, to minus infinity. Shape (rows, V)."""
        ordered, order = logits.sort(-1, descending=True)
        rank = torch.arange(logits.shape[-1])
        # top-k first: top-p counts the probabilities that top-k leaves.
        drop = (self.top_k > 0) & (rank >= self.top_k)
        # Probability mass before each token: the first token that reaches top_p is kept.
        before = ordered.masked_fill(drop, -torch.inf).softmax(-1).cumsum(-1).roll(1, -1)
        before[:, 0] = 0
        drop |= (before >= self.top_p) & (self.top_p < 1)
        return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)
