"""Compression of pictures between rollout and trainer: bytes and a palette in place of a processor's floats.

A Qwen-VL processor turns a picture of 1200 x 1200 pixels into 8.7 million float32 values, 35 MB, and writes
every pixel twice, once for each frame of a still picture. An update of 2048 responses to street views is then
70 GB that verl puts into TransferQueue and reads again for every pass over the data. The values are 256
levels for each color channel: here they travel as one byte a pixel and a palette, an eighth of the size, and
the engine gets bit-identical floats. `verl.utils.model.extract_multi_modal_inputs` unpacks, just before the
model reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

PIXELS, LEVELS, PALETTE, FRAMES = "pixel_values", "sftrl_levels", "sftrl_palette", "sftrl_frames"
_CHANNELS = 3


def pack(inputs: dict[str, Any], image_processor: Any) -> dict[str, Any]:
    """Replace the pixel values of a row by bytes, where that loses nothing.

    Args:
        inputs: A processor's tensors of the row's pictures; ``pixel_values`` of shape
            ``(patches, channels * frames * patch pixels)``, as Qwen-VL processors give them.
        image_processor: That processor, with ``image_mean``, ``image_std``, ``rescale_factor`` and
            ``temporal_patch_size``.

    Returns:
        A new dictionary; the same one where the values are of another layout or are not 256 levels.
    """
    values = inputs.get(PIXELS)
    if not isinstance(values, Tensor) or values.dim() != 2 or values.dtype != torch.float32:
        return inputs
    frames = int(getattr(image_processor, "temporal_patch_size", 1))
    if values.shape[1] % (_CHANNELS * frames):
        return inputs
    split = values.view(len(values), _CHANNELS, frames, -1)
    # A still picture repeats its frame; a video does not, and stays as it is.
    if not torch.equal(split, split[:, :, :1].expand_as(split)):
        return inputs
    still = split[:, :, 0]
    levels = _levels(still, image_processor)
    # The palette takes the floats themselves, since computing them again might round differently.
    palette = torch.zeros(_CHANNELS, 256)
    for channel in range(_CHANNELS):
        palette[channel, levels[:, channel].long()] = still[:, channel]
    if not torch.equal(_look_up(levels, palette), still):
        return inputs
    kept = {key: value for key, value in inputs.items() if key != PIXELS}
    return {**kept, LEVELS: levels, PALETTE: palette, FRAMES: torch.tensor(frames)}


def unpack(inputs: dict[str, Any]) -> dict[str, Any]:
    """Restore the inputs that `pack` was given; other inputs are returned as they are."""
    if LEVELS not in inputs:
        return inputs
    still = _look_up(inputs[LEVELS], inputs[PALETTE])
    frames = int(inputs[FRAMES])
    values = still.unsqueeze(2).expand(-1, -1, frames, -1).reshape(len(still), -1)
    kept = {key: value for key, value in inputs.items() if key not in (LEVELS, PALETTE, FRAMES)}
    return {**kept, PIXELS: values}


def _levels(still: Tensor, image_processor: Any) -> Tensor:
    """Byte of each value before normalization. Shape (patches, channels, pixels)."""
    mean = torch.tensor(image_processor.image_mean).view(1, -1, 1)
    std = torch.tensor(image_processor.image_std).view(1, -1, 1)
    scale = float(image_processor.rescale_factor)
    # Inverse of (byte * scale - mean) / std.
    return torch.addcmul(mean / scale, still, std / scale).round_().clamp_(0, 255).to(torch.uint8)


def _look_up(levels: Tensor, palette: Tensor) -> Tensor:
    channels = [palette[channel][levels[:, channel].long()] for channel in range(_CHANNELS)]
    return torch.stack(channels, dim=1)


def pack_on_the_way_out(module: ModuleType) -> None:
    """Let the agent loop's workers pack (``AgentLoopWorker._compute_multi_modal_inputs``)."""
    worker = module.AgentLoopWorker
    compute = worker._compute_multi_modal_inputs

    def _compute_multi_modal_inputs(self: Any, output: Any, input_ids: Tensor) -> dict[str, Any]:
        inputs = compute(self, output, input_ids)
        if PIXELS not in inputs:
            return inputs
        return pack(inputs, self.processor.image_processor)

    worker._compute_multi_modal_inputs = _compute_multi_modal_inputs


def unpack_on_the_way_in(module: ModuleType) -> None:
    """Let verl's engines unpack (``verl.utils.model.extract_multi_modal_inputs``)."""
    extract: Callable[..., Any] = module.extract_multi_modal_inputs

    def extract_multi_modal_inputs(batch_data: Sequence[Any], indices: list[int] | None = None) -> Any:
        from tensordict import NonTensorData

        chosen = batch_data if indices is None else [batch_data[i] for i in indices if i < len(batch_data)]
        rows = [row.data if isinstance(row, NonTensorData) else row for row in chosen]
        return extract([row if row is None else unpack(dict(row)) for row in rows])

    module.extract_multi_modal_inputs = extract_multi_modal_inputs  # type: ignore[attr-defined]
