"""The parameters that the compute axis takes for a critic are those of the one that verl makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForTokenClassification

from sftrl_ext.hf_folder import critic_parameter_count, parameter_count
from sftrl_ext.training.vision_critic import register_critics
from tests.backends.tiny import save_folder
from tests.backends.tiny_vl import folder


def critic_size(path: Path) -> int:
    register_critics(None)
    config = AutoConfig.from_pretrained(path)
    config.num_labels = 1
    return sum(p.numel() for p in AutoModelForTokenClassification.from_config(config).parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_of_a_text_model(tmp_path, tied):
    path = save_folder(tmp_path / "m", tied=tied)
    assert critic_parameter_count(path) == critic_size(path)
    assert (critic_parameter_count(path) < parameter_count(path)) == (not tied)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "mllama"])
def test_of_a_vision_model(kind):
    assert critic_parameter_count(folder(kind)) == critic_size(folder(kind))
