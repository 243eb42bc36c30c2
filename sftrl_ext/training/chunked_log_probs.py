"""Log-probabilities of labels without flash-attn, many tokens at a time.

verl's ``logprobs_from_logits_v2`` walks over the first dimension of the logits to bound its memory. Its
engines call it with logits ``[tokens, vocabulary]``, so that it starts several kernels for every single token
of a micro-batch, forward and backward: a fifth of an SFT step on a CPU, and up to 73,728 rounds a micro-batch
on a GPU without flash-attn. `log_probs_in_chunks` replaces it; values and gradients are the same to the bit.
"""

from __future__ import annotations

from types import ModuleType

from sftrl_ext.verl_version import check_verl_version

CHUNK_ELEMENTS = 2**23
"""Logits of a chunk at most, 32 MiB in float32: the temporary memory of one step."""


def log_probs_in_chunks(module: ModuleType) -> None:
    """``logprobs_from_logits_v2`` in ``verl.utils.torch_functional``: chunks in the place of single rows.

    Raises:
        SftrlError: if another verl is installed than the one whose function this is.
    """
    import torch

    check_verl_version("training without flash-attn")

    def logprobs_from_logits_v2(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of ``labels`` ``[...]`` under ``logits`` ``[..., vocabulary]``."""
        if not labels.numel():
            return logits.new_zeros(labels.shape)
        rows = max(1, CHUNK_ELEMENTS // logits[0].numel())
        # torch computes log_softmax of bfloat16 in float32; logsumexp would be rounded before the difference.
        exact = logits.dtype in (torch.float32, torch.float64)
        parts = []
        for chunk, chosen in zip(logits.split(rows), labels.split(rows), strict=True):
            whole = chunk if exact else chunk.log_softmax(-1)
            picked = whole.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            parts.append(picked - chunk.logsumexp(-1) if exact else picked)
        return torch.cat(parts)

    module.logprobs_from_logits_v2 = logprobs_from_logits_v2  # type: ignore[attr-defined]
