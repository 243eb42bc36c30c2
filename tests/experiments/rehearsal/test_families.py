"""Toy models of the named families: loaded by the real classes, under the real names, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from transformers import AutoConfig, AutoTokenizer

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.rehearsal.families import FAMILIES, family_of, repository_of
from sftrl_ext.experiments.rehearsal.hub import put_toy_model, sample_texts
from sftrl_ext.hf_folder import load_processor, parameter_count
from sftrl_ext.rollout.tokens import load_chat_tokens

CLASSES = {
    "llama3": ("LlamaForCausalLM", "TokenizersBackend", None),
    "smollm2": ("LlamaForCausalLM", "GPT2Tokenizer", None),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2Tokenizer", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen2Tokenizer", "Qwen3VLProcessor"),
    "mllama": ("MllamaForConditionalGeneration", "TokenizersBackend", "MllamaProcessor"),
}
TEXTS = sample_texts(10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        FAMILIES[name](root / name, TEXTS)
    return root


@pytest.mark.parametrize("family", CLASSES)
def test_classes_are_the_familys_own(folders: Path, family: str) -> None:
    architecture, tokenizer, processor = CLASSES[family]
    config = AutoConfig.from_pretrained(folders / family)
    assert config.architectures == [architecture]
    assert type(AutoTokenizer.from_pretrained(folders / family)).__name__ == tokenizer
    loaded = load_processor(folders / family)
    assert (type(loaded).__name__ if loaded is not None else None) == processor
    assert str(config.dtype) == "torch.bfloat16"
    assert parameter_count(folders / family) < 1_000_000


@pytest.mark.parametrize("family", CLASSES)
def test_texts_survive_the_tokenizer_and_dialogues_the_template(folders: Path, family: str) -> None:
    chat = load_chat_tokens(folders / family)
    for text in (*TEXTS[:4], "J♠ = 11\n\n  é"):
        ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert chat.tokenizer.decode(ids) == text
    assert chat.closing[0] == chat.tokenizer.eos_token_id
    prompt = chat.tokenizer.decode(chat.builder.build_initial_tokens([{"role": "user", "content": "hi"}]))
    begins = {"llama3": 1, "mllama": 1}
    assert prompt.count("<|begin_of_text|>") == begins.get(family, 0)
    assert ("system" in prompt) == (family != "qwen3_vl")


@pytest.mark.parametrize("family", CLASSES)
def test_heads_are_as_wide_as_vllm_needs(folders: Path, family: str) -> None:
    config = AutoConfig.from_pretrained(folders / family).get_text_config()
    assert config.hidden_size // config.num_attention_heads >= 32


def test_qwens_embeddings_are_padded_and_llamas_are_not(folders: Path) -> None:
    for family in CLASSES:
        config = AutoConfig.from_pretrained(folders / family).get_text_config()
        spare = config.vocab_size - len(AutoTokenizer.from_pretrained(folders / family))
        assert spare == {"qwen2_5_vl": 64, "qwen3_vl": 64, "mllama": -1}.get(family, 0)


def test_every_shipped_recipe_names_a_family() -> None:
    found = set()
    for path in distinct_recipes():
        for scale in ("gpu", "node", "cluster"):
            model = load_recipe(path.stem, scale).model
            found.add(family_of(repository_of(model.path, model.package)))
    assert found == {"llama3", "smollm2", "qwen2_5_vl"}
    for name in ("Qwen/Qwen3-VL-8B-Instruct", "meta-llama/Llama-3.2-11B-Vision-Instruct"):
        assert family_of(name) in ("qwen3_vl", "mllama")


def test_a_model_without_a_family_is_refused() -> None:
    with pytest.raises(SftrlError, match="no toy model"):
        family_of("mistralai/Ministral-8B")
    for path, package in ((None, None), ("/models/mine", None), (None, "llm-unknown")):
        with pytest.raises(SftrlError, match="hub name"):
            repository_of(path, package)


def test_a_toy_model_loads_by_its_hub_name_without_a_network(tmp_path: Path) -> None:
    name = "meta-llama/Llama-3.1-8B-Instruct"
    snapshot = put_toy_model(tmp_path, name, TEXTS)
    assert put_toy_model(tmp_path, name, []) == snapshot
    assert all(path.is_symlink() for path in snapshot.iterdir())
    code = (
        "import json; from transformers import AutoConfig, AutoTokenizer;"
        f"print(json.dumps([AutoConfig.from_pretrained('{name}').hidden_size,"
        f"len(AutoTokenizer.from_pretrained('{name}').chat_template)]))"
    )
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    hidden, template = json.loads(done.stdout.splitlines()[-1])
    assert hidden == 64 and template > 100
