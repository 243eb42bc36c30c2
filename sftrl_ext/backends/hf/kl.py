"""How far apart the next-token distributions of two engines' models are, on dialogues that were played.

Both models read the whole dialogue once, and their distributions are compared at every token that the model
wrote in it; prompts and feedback are read and not counted. The distributions are those that a response is
sampled from: over the whole vocabulary without the tokens that are never sampled, at a temperature. So the
divergence of each position is exact, and all that is left to chance is which dialogues were played.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sftrl_ext.backends.hf.engine import Engine
from sftrl_ext.rollout.player import Segment
from sftrl_ext.training.sft_losses import divergence

MOST_LOGITS = 1 << 27
"""Logits that a model makes in one pass: half a gigabyte in float32."""

MOST_COMPARED = 1 << 23
"""Logits of each model that are compared at once."""

_NEVER = -1e30
"""Logit of what is never sampled: with minus infinity in both models their difference would be no number."""


@torch.inference_mode()
def divergences(
    first: Engine, second: Engine, segments: Sequence[Segment], temperature: float
) -> list[float]:
    """KL(first || second) of every segment, summed over the tokens that the model wrote, in nats.

    Args:
        first: An engine.
        second: One with the same tokens and other weights.
        segments: Dialogues as they were played; who played them makes no difference here.
        temperature: What logits are divided by. 0, where no distribution is sampled from, counts as 1.
    """
    totals = [0.0] * len(segments)
    for rows in _batches(first, segments):
        texts = [[*segments[row].prompt_ids, *segments[row].response_ids] for row in rows]
        images = [segments[row].images for row in rows]
        wanted = _wanted([segments[row] for row in rows])
        per_pass = max(1, MOST_LOGITS // (len(rows) * len(first.banned)))
        for keep in wanted.any(0).nonzero()[:, 0].split(per_pass):
            pair = [engine.read_texts(texts, images, keep.to(engine.device)) for engine in (first, second)]
            for which, place in _chunks(wanted[:, keep], len(first.banned)):
                ours, theirs = (_sampled(logits[which, place], first.banned, temperature) for logits in pair)
                # Rounding can leave a divergence of nearly nothing below zero.
                found = divergence(theirs, ours).clamp(min=0).double().cpu()
                for row, nats in zip(which.tolist(), found.tolist(), strict=True):
                    totals[rows[row]] += nats
    return totals


def _batches(engine: Engine, segments: Sequence[Segment]) -> Iterator[list[int]]:
    """Segments with tokens to count, those of about one length together, as many as one pass may hold."""
    most = min(engine.prefill_tokens, MOST_LOGITS // len(engine.banned))
    lengths = {
        row: len(segment.prompt_ids) + len(segment.response_ids)
        for row, segment in enumerate(segments)
        if any(segment.response_mask)
    }
    batch: list[int] = []
    for row in sorted(lengths, key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _wanted(segments: Sequence[Segment]) -> Tensor:
    """After which tokens the model wrote the next one. Shape (rows, tokens)."""
    width = max(len(segment.prompt_ids) + len(segment.response_ids) for segment in segments)
    wanted = torch.zeros(len(segments), width, dtype=torch.bool)
    for row, segment in zip(wanted, segments, strict=True):
        before = len(segment.prompt_ids) - 1
        row[before : before + len(segment.response_mask)] = torch.tensor(segment.response_mask).bool()
    return wanted


def _chunks(wanted: Tensor, vocabulary: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, places) of all that is wanted, few enough at a time to compare."""
    rows, places = wanted.nonzero(as_tuple=True)
    size = max(1, MOST_COMPARED // vocabulary)
    return zip(rows.split(size), places.split(size), strict=True)


def _sampled(logits: Tensor, banned: Tensor, temperature: float) -> Tensor:
    """Logits of the distribution that is sampled from. Shape (tokens, vocabulary), in float32."""
    return (logits.float() / (temperature or 1.0)).masked_fill(banned, _NEVER)
