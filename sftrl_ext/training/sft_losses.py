"""Losses of SFT as pure tensor functions.

With p the model's distribution at a token, y the target token and q the distribution of the start model
there, the loss of a token is

- ``nll``: -log p(y), what verl's trainer minimizes;
- ``dft``: -sg(p(y)) log p(y), the probability as a weight without gradient (dynamic fine-tuning,
  arXiv 2508.05629), so that tokens the model finds unlikely pull no harder than others;
- ``kl``: -log p(y) + beta KL(q || p), anchored to the start model;
- ``dft_kl``: -sg(p(y)) log p(y) + beta KL(q || p) (anchored SFT, arXiv 2509.23753).

The anchor is the divergence over the full vocabulary, not its term at y. The batch's loss is the mean
over the tokens that carry loss. A plug-in may register further losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sftrl_ext.training.engine_settings import LOSSES, TrainEngineSettings


def token_kl(logits: Tensor, start_logits: Tensor) -> Tensor:
    """Compute KL(q || p) of each token over the vocabulary, in nats.

    Args:
        logits: ``[tokens, vocabulary]`` of the model, with gradient.
        start_logits: The same of the start model.

    Returns:
        ``[tokens]``, in float32.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    log_q = torch.log_softmax(start_logits.float(), dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def batch_loss(log_prob: Tensor, settings: TrainEngineSettings, kl: Tensor | None = None) -> Tensor:
    """Sum the loss over tokens; the caller divides by the number of tokens of the batch.

    Args:
        log_prob: ``[tokens]`` log p(y) of the tokens that carry loss, with gradient.
        settings: Which loss, and the weight of its anchor.
        kl: ``[tokens]`` from `token_kl`, where the loss is anchored.
    """
    loss: Tensor = LOSSES[settings.loss].term(log_prob).sum()
    return loss if kl is None else loss + settings.kl_coef * kl.sum()
