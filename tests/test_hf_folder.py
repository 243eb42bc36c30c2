"""The configuration of a saved folder names the type of its weights."""

from __future__ import annotations

import json

import pytest
import torch

from sftrl_ext.errors import SftrlError
from sftrl_ext.hf_folder import declare_stored_dtype, eos_token_ids, load_model, load_tokenizer, stored_dtype
from sftrl_ext.rollout.tokens import load_chat_tokens
from tests.backends.tiny import save_folder, tiny_llama


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


def set_key(name, **keys):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return change


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        write("config.json", b""),
        write("config.json", b"[]"),
        write("config.json", b"\xff"),
        set_key("config.json", model_type="nope"),
        set_key("config.json", hidden_size="wide"),
        set_key("config.json", num_attention_heads=0),
        set_key("config.json", hidden_size=64),
        set_key("config.json", rope_parameters={"rope_type": "nope"}),
        write("tokenizer.json", b""),
        write("tokenizer.json", b"{}"),
        write("tokenizer.json", b"[]"),
        write("tokenizer_config.json", b"[]"),
        write("chat_template.jinja", b"{% for"),
        write("chat_template.jinja", b"{{ nothing.x.y }}"),
        write("chat_template.jinja", b"\xff"),
        write("model.safetensors", b""),
        write("model.safetensors", b"x" * 1000),
        write("generation_config.json", b"{"),
        write("generation_config.json", b"[]"),
    ],
)
def test_a_broken_folder_is_named(tmp_path, change):
    folder = save_folder(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    load_all(folder)
    change(folder)
    with pytest.raises(SftrlError, match="model: .* can be loaded from this model folder"):
        load_all(folder)


def load_all(folder):
    eos_token_ids(folder, load_tokenizer(folder))
    load_chat_tokens(folder)
    load_model(folder, torch.float32)


def test_weights_that_a_folder_lacks_are_not_drawn_at_random(tmp_path):
    folder = save_folder(tmp_path / "model", tied=True)
    load_model(folder, torch.float32)
    set_key("config.json", num_hidden_layers=3)(folder)
    with pytest.raises(SftrlError, match=r"9 weights of the model are missing: model\.layers\.2"):
        load_model(folder, torch.float32)
