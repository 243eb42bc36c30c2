"""The configuration of a saved folder names the type of its weights."""

from __future__ import annotations

import json

import pytest
import torch

from sftrl_ext.errors import SftrlError
from sftrl_ext.hf_folder import declare_stored_dtype, stored_dtype
from tests.backends.tiny import tiny_llama


def test_a_wrong_dtype_is_corrected(tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_llama()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert declare_stored_dtype(tmp_path) == stored_dtype(tmp_path) == "float32"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert json.loads((tmp_path / "config.json").read_text()) == {**config, "dtype": "float32"}


def test_half_precision_stays_what_it_is(tmp_path):
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path)
    assert declare_stored_dtype(tmp_path) == "bfloat16"


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(SftrlError, match="hf_model"):
        declare_stored_dtype(tmp_path)
