"""Freezing the vision encoder: what stops learning, and that verl finds the engine only when asked to."""

import pytest
import torch

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.engine_settings import FREEZABLE, VENDOR, engine_env
from sftrl_ext.training.freezing import freeze_parts
from tests.backends.tiny import tiny_llama
from tests.backends.tiny_vl import plain_model


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("freeze", FREEZABLE)
def test_parts_of_the_vision_encoder(freeze):
    model = plain_model()
    every = learning(model)
    count = freeze_parts(model, freeze)
    frozen = every - learning(model)
    assert frozen and all(".visual." in name for name in frozen)
    assert any("merger" in name for name in frozen) == (freeze == "vision_and_adapter")
    assert count == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert {name for name in every if ".visual." not in name} <= learning(model)


def test_adapters_beside_the_encoder():
    class Mllama(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vision_model, self.multi_modal_projector = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            self.language_model = torch.nn.Linear(2, 2)

    assert freeze_parts(Mllama(), "vision") == 6
    model = Mllama()
    assert freeze_parts(model, "vision_and_adapter") == 12
    assert learning(model) == {"language_model.weight", "language_model.bias"}


def test_what_cannot_be_frozen_is_named():
    with pytest.raises(SftrlError, match="LlamaForCausalLM has no vision encoder"):
        freeze_parts(tiny_llama(), "vision")
    with pytest.raises(SftrlError, match="vision_and_adapter"):
        engine_env("vision_and_adaptor")
    assert engine_env(None) == {}


def test_verl_finds_the_engine_by_its_vendor(monkeypatch):
    import verl.workers.engine.fsdp.transformer_impl as verl_engine
    from verl.workers.engine.base import EngineRegistry

    monkeypatch.setenv("VERL_ENGINE_DEVICE", "cuda")
    plain = EngineRegistry.get_engine_cls("language_model", "fsdp2")
    assert plain is verl_engine.FSDPEngineWithLMHead
    for name, value in engine_env("vision").items():
        monkeypatch.setenv(name, value)
    freezing = EngineRegistry.get_engine_cls("language_model", "fsdp2")
    assert issubclass(freezing, plain) and freezing is not plain
    assert EngineRegistry.get_engine_cls("value_model", "fsdp2") is verl_engine.FSDPEngineWithValueHead
    assert VENDOR == "sftrl"
