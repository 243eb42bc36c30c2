"""Freezing of the vision encoder of a vision-language model, with or without its adapter.

verl 0.9.1 has a setting for this that its FSDP engine never reads; `sftrl_ext.training.engine` does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.engine_settings import TrainEngineSettings

if TYPE_CHECKING:
    from torch import nn

_ENCODERS = ("visual", "vision_tower", "vision_model")
_ADAPTERS_INSIDE = ("merger", "deepstack_merger_list")
_ADAPTERS_BESIDE = ("multi_modal_projector",)


def freeze_parts(model: nn.Module, freeze: str) -> int:
    """Stop gradients to the vision encoder, with or without the adapter.

    Args:
        model: A model with an encoder named as in the Qwen-VL, Llava or Mllama families.
        freeze: One of `sftrl_ext.training.engine_settings.FREEZABLE`.

    Returns:
        The number of parameters that are frozen.

    Raises:
        SftrlError: if the model has no vision encoder, or ``freeze`` is unknown.
    """
    TrainEngineSettings(freeze)  # refuses unknown values
    encoder = next((module for name, module in _named(model, _ENCODERS)), None)
    if encoder is None:
        raise SftrlError(
            f"{type(model).__name__} has no vision encoder to freeze; expected a module named "
            f"{', '.join(_ENCODERS)}."
        )
    frozen = 0
    for name, parameter in encoder.named_parameters():
        # Qwen-VL keeps its adapter inside the encoder, Llava and Mllama beside it.
        if freeze == "vision" and name.split(".")[0] in _ADAPTERS_INSIDE:
            continue
        parameter.requires_grad_(False)
        frozen += parameter.numel()
    if freeze == "vision_and_adapter":
        for _, module in _named(model, _ADAPTERS_BESIDE):
            frozen += sum(parameter.numel() for parameter in module.parameters())
            module.requires_grad_(False)
    return frozen


def _named(model: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in names:
            yield name, module
