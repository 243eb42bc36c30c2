"""Training a vision-language model with its vision encoder, or encoder and adapter, left as they are.

verl 0.9.1 has a setting for this that its FSDP engine never reads. Here the engine is a subclass, filed in
verl's registry under a vendor name of our own, which `freezing_env` selects: a run that freezes nothing uses
verl's engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from torch import nn

VENDOR = "sftrl"
"""``VERL_ENGINE_VENDOR`` under which the engine is filed."""
VARIABLE = "SFTRL_FREEZE"
"""Variable that names what is frozen."""

CHOICES = ("vision", "vision_and_adapter")
"""What can be frozen: the vision encoder, or also the adapter from its features to the language model."""

_ENCODERS = ("visual", "vision_tower", "vision_model")
_ADAPTERS_INSIDE = ("merger", "deepstack_merger_list")
_ADAPTERS_BESIDE = ("multi_modal_projector",)


def freezing_env(freeze: str | None) -> dict[str, str]:
    """Variables every training process needs to freeze a part; none to freeze nothing.

    Raises:
        SftrlError: if ``freeze`` is not one of `CHOICES`.
    """
    if freeze is None:
        return {}
    if freeze not in CHOICES:
        raise unknown_name("part to freeze", freeze, CHOICES)
    return {"VERL_ENGINE_VENDOR": VENDOR, VARIABLE: freeze}


def freeze_parts(model: nn.Module, freeze: str) -> int:
    """Stop gradients to the vision encoder, with or without the adapter.

    Args:
        model: A model with an encoder named as in the Qwen-VL, Llava or Mllama families.
        freeze: One of `CHOICES`.

    Returns:
        The number of parameters that are frozen.

    Raises:
        SftrlError: if the model has no vision encoder, or ``freeze`` is unknown.
    """
    freezing_env(freeze)
    encoder = next((module for name, module in _named(model, _ENCODERS)), None)
    if encoder is None:
        raise SftrlError(
            f"{type(model).__name__} has no vision encoder to freeze; expected a module named "
            f"{', '.join(_ENCODERS)}."
        )
    frozen = 0
    for name, parameter in encoder.named_parameters():
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


@cache
def register_engine(module: Any) -> None:
    """File the engine once verl's module of FSDP engines is imported; a second time does nothing."""
    from verl.workers.engine.base import EngineRegistry

    class FreezingEngine(module.FSDPEngineWithLMHead):  # type: ignore[misc, name-defined]
        """verl's FSDP engine for language models, with a part frozen before it is sharded."""

        def _build_module(self) -> nn.Module:
            model: nn.Module = super()._build_module()
            if (freeze := os.environ.get(VARIABLE)) is not None:
                freeze_parts(model, freeze)
            return model

    EngineRegistry.register(
        model_type="language_model", backend=["fsdp", "fsdp2"], device=["cuda", "npu"], vendor=VENDOR
    )(FreezingEngine)
