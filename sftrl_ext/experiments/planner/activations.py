"""Bytes of activations and logits of one micro-batch, as transformers' decoders and verl's losses keep them.

Measured against real forward and backward passes in ``calibration.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sftrl_ext.experiments.planner.architectures import Architecture
from sftrl_ext.training.chunked_log_probs import CHUNK_ELEMENTS


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch on one rank.

    Attributes:
        tokens: Tokens that the model computes on, padding included.
        valid: Tokens without padding.
        rows: Sequences.
        images: Images among them.
        patches: Patches of one image.
    """

    tokens: float
    valid: float
    rows: float
    images: float = 0
    patches: int = 0


def layer_bytes(architecture: Architecture, dtype_bytes: int) -> float:
    """Bytes a token that autograd saves in one decoder layer.

    Two norms save their input and its normalized form in float32 and their output; attention saves queries,
    keys, values, and its output twice (transposed for the output projection); the gated feed-forward layer
    saves gate, activation, up and product.
    """
    a = architecture
    # In float32 the norm's input is the residual itself, and nothing is cast.
    norms = 2 * a.hidden * ((4 + 4 if dtype_bytes == 4 else 4 + 2) + dtype_bytes)
    attention = dtype_bytes * (3 * a.query_width + 2 * a.kv_width)
    return norms + attention + 4 * a.intermediate * dtype_bytes


def saved_bytes(
    architecture: Architecture, batch: MicroBatch, dtype_bytes: int, checkpointing: bool
) -> float:
    """Bytes of activations of the decoder at the start of the backward pass, and of one layer's backward.

    With gradient checkpointing a layer keeps its input only, and the layer in the backward pass is computed
    again; the gradients of its feed-forward layer are as large as two of its four tensors.
    """
    layer = layer_bytes(architecture, dtype_bytes) * batch.tokens
    backward = 2 * architecture.intermediate * dtype_bytes * batch.tokens
    if not checkpointing:
        return architecture.layers * layer + backward
    inputs = architecture.layers * architecture.hidden * dtype_bytes * batch.tokens
    return inputs + layer + backward


def forward_bytes(architecture: Architecture, batch: MicroBatch, dtype_bytes: int) -> float:
    """Bytes of a pass without gradients: residual, norm and the feed-forward layer's three tensors."""
    wide = 3 * architecture.intermediate + 3 * architecture.hidden
    return wide * dtype_bytes * batch.tokens + vision_bytes(architecture, batch, dtype_bytes, None)


def vision_bytes(
    architecture: Architecture, batch: MicroBatch, dtype_bytes: int, checkpointing: bool | None
) -> float:
    """Bytes of the vision encoder over a micro-batch's images.

    Args:
        architecture: The model.
        batch: Its images and patches.
        dtype_bytes: Of an activation.
        checkpointing: None for a pass without gradients.
    """
    vision = architecture.vision
    if vision is None or not batch.images:
        return 0.0
    patches = batch.images * batch.patches
    # Three channels of every pixel and frame of a patch, in float32.
    pixels = 3 * vision.temporal * vision.patch**2 * 4
    block = dtype_bytes * (14 * vision.hidden + 4 * vision.intermediate) + 8 * vision.hidden
    if checkpointing is None:
        return patches * (pixels + dtype_bytes * (3 * vision.hidden + 3 * vision.intermediate))
    kept = vision.layers * vision.hidden * dtype_bytes if checkpointing else vision.layers * block
    return patches * (pixels + kept + block)


@dataclass(frozen=True)
class LogitPass:
    """Use that one pass makes of the logits.

    Attributes:
        training: A backward pass follows.
        entropy: ``none``, ``chunked`` or ``full``.
        scaled: They are divided by a temperature other than 1, in a copy.
        packed: Rows are packed; otherwise padded, and copied without padding for the log-probabilities.
        flash: flash-attn's cross-entropy kernel is installed.
        chunk: Rows of a chunk of the entropy.
    """

    training: bool
    entropy: str = "none"
    scaled: bool = True
    packed: bool = True
    flash: bool = True
    chunk: int = 2048


def logit_bytes(batch: MicroBatch, vocab: int, dtype_bytes: int, work: LogitPass) -> float:
    """Peak bytes of logits and what is computed from them.

    Sources, verl 0.9.1: ``workers/engine/fsdp/transformer_impl.py: prepare_model_outputs`` (the model's
    output stays referenced while its scaled copy is used; without padding removal the entropy is never
    chunked, and valid rows are copied), ``utils/torch_functional.py: logprobs_from_logits`` (flash-attn's
    kernel writes gradients over the logits; without it every chunk's log-softmax is kept in float32 for the
    backward pass, where each chunk's gradient is made and all are then joined, see
    `sftrl_ext.training.chunked_log_probs`), ``entropy_from_logits``
    (softmax and its product with the logits, in float32 under autocast),
    ``entropy_from_logits_with_chunking``.
    """
    elements, valid = batch.tokens * vocab, batch.valid * vocab
    logits = dtype_bytes * elements * (2 if work.scaled else 1)
    picked = 0.0 if work.packed else dtype_bytes * valid
    exponentials = 0.0 if work.flash else 4.0 * min(CHUNK_ELEMENTS, valid)
    if not work.training:
        if work.entropy == "full":
            return logits + max(picked + exponentials, 8 * elements)
        cast = 4 if dtype_bytes == 2 else 0
        chunk = (8 + cast) * min(work.chunk, batch.tokens) * vocab if work.entropy == "chunked" else 0.0
        return logits + max(picked + exponentials, chunk)
    if work.flash:
        # Output and scaled copy in the forward pass; gradient of the copy (in place) and of the output after.
        return max(logits, 2 * dtype_bytes * elements) + picked
    saved = 4 * valid if dtype_bytes == 2 else 0.0
    rows = 2 * dtype_bytes * valid  # gradient of each chunk, and all of them joined
    held = (dtype_bytes * elements if work.scaled else 0.0) + picked + (0.0 if work.scaled else logits)
    forward = logits + picked + saved + exponentials
    backward = held + max(saved, rows) + exponentials + (dtype_bytes * elements if not work.packed else 0.0)
    entropy = {"none": 0.0, "chunked": 12 * valid, "full": 12 * elements}[work.entropy]
    return max(forward, backward) + entropy
