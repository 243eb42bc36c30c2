"""KL divergence between the next-token distributions of two models, on dialogues that were played.

Both models read the full dialogue once, and their distributions are compared at every token that the model
wrote in it; prompts and feedback are read and not counted. The distributions are those that a response is
sampled from: over the full vocabulary without the tokens that are never sampled, at a temperature. So the
divergence of each position is exact, and the only randomness is the choice of dialogues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sftrl_ext.backends.hf.engine import Engine
from sftrl_ext.rollout.player import Segment
from sftrl_ext.training.sft_losses import token_kl

MAX_LOGITS = 1 << 27
"""Logits that a model makes in one pass: half a gigabyte in float32."""

MAX_COMPARED = 1 << 23
"""Logits of each model that are compared at once."""

_BANNED_LOGIT = -1e30
"""Logit of a token that is never sampled: with minus infinity in both models the difference would be NaN."""


@torch.inference_mode()
def segment_kl(first: Engine, second: Engine, segments: Sequence[Segment], temperature: float) -> list[float]:
    """Compute KL(first || second) of every segment, summed over the tokens that the model wrote, in nats.

    Args:
        first: An engine.
        second: An engine with the same vocabulary and other weights.
        segments: Dialogues as they were played, by any model.
        temperature: Divisor of the logits. 0, where no distribution is sampled from, counts as 1.
    """
    totals = [0.0] * len(segments)
    vocabulary = len(first.banned)
    for rows in _batches(first, segments):
        texts = [[*segments[row].prompt_ids, *segments[row].response_ids] for row in rows]
        images = [segments[row].images for row in rows]
        mask = _predicts_response([segments[row] for row in rows])
        per_pass = max(1, MAX_LOGITS // (len(rows) * vocabulary))
        # Only columns in which some row predicts a written token get logits at all.
        for keep in mask.any(0).nonzero()[:, 0].split(per_pass):
            pair = [engine.text_logits(texts, images, keep.to(engine.device)) for engine in (first, second)]
            for row_index, column in _chunks(mask[:, keep], vocabulary):
                ours, theirs = (
                    _sampled_from(logits[row_index, column], first.banned, temperature) for logits in pair
                )
                # Rounding can leave a divergence of nearly nothing below zero.
                kl = token_kl(theirs, ours).clamp(min=0).double().cpu()
                for row, nats in zip(row_index.tolist(), kl.tolist(), strict=True):
                    totals[rows[row]] += nats
    return totals


def _batches(engine: Engine, segments: Sequence[Segment]) -> Iterator[list[int]]:
    """Batch segments of about equal length within the limits of a pass; drop those without a response."""
    max_tokens = min(engine.prefill_tokens, MAX_LOGITS // len(engine.banned))
    lengths = {
        row: len(segment.prompt_ids) + len(segment.response_ids)
        for row, segment in enumerate(segments)
        if any(segment.response_mask)
    }
    batch: list[int] = []
    for row in sorted(lengths, key=lengths.__getitem__):
        # Ordered by length, the next row is the longest, to which all are padded.
        if batch and (len(batch) + 1) * lengths[row] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _predicts_response(segments: Sequence[Segment]) -> Tensor:
    """Mask of the tokens after which the model wrote the next one. Shape (rows, tokens)."""
    width = max(len(segment.prompt_ids) + len(segment.response_ids) for segment in segments)
    mask = torch.zeros(len(segments), width, dtype=torch.bool)
    for row, segment in zip(mask, segments, strict=True):
        # The logits at a token predict the next one, hence the shift by one to the left.
        start = len(segment.prompt_ids) - 1
        row[start : start + len(segment.response_mask)] = torch.tensor(segment.response_mask).bool()
    return mask


def _chunks(mask: Tensor, vocabulary: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split the (rows, columns) of a mask into chunks small enough to compare."""
    rows, columns = mask.nonzero(as_tuple=True)
    size = max(1, MAX_COMPARED // vocabulary)
    return zip(rows.split(size), columns.split(size), strict=True)


def _sampled_from(logits: Tensor, banned: Tensor, temperature: float) -> Tensor:
    """Logits of the distribution that is sampled from. Shape (tokens, vocabulary), in float32."""
    return (logits.float() / (temperature or 1.0)).masked_fill(banned, _BANNED_LOGIT)
