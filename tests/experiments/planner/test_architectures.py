"""Parameter counts against transformers' own models, built without weights."""

import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.planner.architectures import KNOWN, architecture_of, from_hf_config
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.schema import ModelConfig
from sftrl_ext.paths import configs_dir

QWEN_VISION = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, patch_size=14)
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def _text(hidden, layers, heads, kv, wide, vocab, **more):
    sizes = dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads)
    return dict(**sizes, num_key_value_heads=kv, intermediate_size=wide, vocab_size=vocab, **more)


CONFIGS = {
    "Llama-3.1-8B-Instruct": ("Llama", _text(4096, 32, 32, 8, 14336, 128256)),
    "SmolLM2-135M-Instruct": ("Llama", _text(576, 30, 9, 3, 1536, 49152, tie_word_embeddings=True)),
    "SmolLM2-360M-Instruct": ("Llama", _text(960, 32, 15, 5, 2560, 49152, tie_word_embeddings=True)),
    "Qwen2.5-VL-3B-Instruct": (
        "Qwen2_5_VL",
        dict(
            text_config=_text(2048, 36, 16, 2, 11008, 151936, rope_parameters=ROPE, tie_word_embeddings=True),
            vision_config=dict(**QWEN_VISION, out_hidden_size=2048),
            tie_word_embeddings=True,
        ),
    ),
    "Qwen2.5-VL-7B-Instruct": (
        "Qwen2_5_VL",
        dict(
            text_config=_text(3584, 28, 28, 4, 18944, 152064, rope_parameters=ROPE),
            vision_config=dict(**QWEN_VISION, out_hidden_size=3584),
        ),
    ),
    "Qwen3-VL-8B-Instruct": (
        "Qwen3VL",
        dict(
            text_config=_text(4096, 36, 32, 8, 12288, 151936, head_dim=128),
            vision_config=dict(
                depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16,
                out_hidden_size=4096, deepstack_visual_indexes=[8, 16, 24], num_position_embeddings=2304,
            ),
        ),
    ),
    "Llama-3.2-11B-Vision-Instruct": (
        "Mllama",
        dict(
            text_config=_text(
                4096, 40, 32, 8, 14336, 128256, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38]
            ),
            vision_config=dict(
                hidden_size=1280, num_hidden_layers=32, num_global_layers=8, attention_heads=16,
                intermediate_size=5120, patch_size=14, image_size=560, max_num_tiles=4,
                vision_output_dim=7680, intermediate_layers_indices=[3, 7, 15, 23, 30],
            ),
        ),
    ),
}  # fmt: skip
"""Hugging Face configs of the models that are listed, as their model cards have them."""


def _build(family, values):
    """A model of a family on the meta device."""
    import torch
    import transformers

    config = getattr(transformers, f"{family}Config")(**values)
    kind = "ForCausalLM" if family == "Llama" else "ForConditionalGeneration"
    with torch.device("meta"):
        model = getattr(transformers, family + kind)(config)
    model.tie_weights()
    return model, config


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_transformers(name):
    pytest.importorskip("transformers")
    family, values = CONFIGS[name]
    model, config = _build(family, values)
    architecture = KNOWN[name]
    assert architecture.parameters == _count(model)
    vision = getattr(model.model, "visual", None) or getattr(model.model, "vision_model", None)
    if vision is None:
        assert architecture.vision is None
        return
    adapter = [m for n, m in model.model.named_modules() if n.endswith(("merger", "deepstack_merger_list"))]
    adapter += [m for n, m in model.model.named_modules() if n == "multi_modal_projector"]
    assert architecture.vision.adapter == sum(_count(module) for module in adapter)
    beside = _count(model.model.multi_modal_projector) if family == "Mllama" else 0
    assert architecture.vision_parameters == _count(vision) + beside
    assert architecture.frozen_parameters("vision") == _count(vision) + beside - architecture.vision.adapter


def test_the_critic_has_no_head_and_one_number_a_token():
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.LlamaConfig(**CONFIGS["Llama-3.1-8B-Instruct"][1], num_labels=1)
    with torch.device("meta"):
        critic = transformers.LlamaForTokenClassification(config)
    assert KNOWN["Llama-3.1-8B-Instruct"].critic_parameters == _count(critic)


@pytest.mark.parametrize("recipe", ["fig6_gp_l", "fig6_virl_vl"])
def test_the_small_models_are_sized_as_they_are_built(recipe, tmp_path):
    """Up to the words that the tokenizer finds: its vocabulary may be smaller than asked for."""
    pytest.importorskip("verl")
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
    from sftrl_ext.experiments.start_models.tiny_vision import build_tiny_qwen_vl

    model = load_recipe(recipe, "laptop").model
    build = build_tiny_llama if model.vision is None else build_tiny_qwen_vl
    built = build(tmp_path, ["four cards: 3, 4, 10, J. Turn left to face north."] * 20, model, seed=0)
    words = json.loads((tmp_path / "config.json").read_text())
    model.vocab_size = (words.get("text_config") or words)["vocab_size"]
    assert architecture_of(model).parameters == built
    assert architecture_of(ModelConfig(name="x", path=str(tmp_path))).parameters == built


def test_every_model_of_the_configs_is_listed():
    names = {line.split(":", 1)[1].strip() for line in _model_lines()}
    assert names and names - {name for name in names if name.startswith("tiny")} <= set(KNOWN)


def _model_lines():
    for path in configs_dir().glob("model/**/*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  name:"):
                yield line


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(SftrlError, match="some/model.*Llama-3.1-8B-Instruct"):
        architecture_of(ModelConfig(name="m", path="some/model"))
    with pytest.raises(SftrlError, match="num_hidden_layers"):
        from_hf_config({"hidden_size": 8, "num_attention_heads": 2})
