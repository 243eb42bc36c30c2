"""Critics start from their policy's weights, whatever wrote the folder, or do not start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from verl.utils import model as verl_model

from sftrl_ext.errors import SftrlError
from tests.training.policies import FAMILIES, tiny_policy


def load_critic(folder: Path):
    """A critic by the name under which verl's engine calls for it, with what the engine sets before."""
    config = AutoConfig.from_pretrained(folder, attn_implementation="sdpa")
    config.num_labels, config.classifier_dropout, config.hidden_dropout = 1, 0.0, "0"
    return verl_model.load_valuehead_model(str(folder), torch.float32, config, False)


def check_equal(critic: torch.nn.Module, policy: dict[str, torch.Tensor]) -> None:
    own = critic.state_dict()
    heads = {"score.weight", "score.bias"}
    assert set(own) - set(policy) == heads
    assert set(policy) - set(own) == {"lm_head.weight"}
    different = [name for name in set(own) - heads if not torch.equal(own[name], policy[name])]
    assert not different, f"{len(different)} of {len(own)}: {different[:3]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_critic_has_the_weights_of_its_policy(family, tmp_path):
    policy = tiny_policy(family)
    policy.save_pretrained(tmp_path)
    first, again = load_critic(tmp_path), load_critic(tmp_path)
    check_equal(first, policy.state_dict())
    assert torch.equal(first.score.weight, again.score.weight) and first.score.weight.abs().sum() > 0


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.save_as_verl", str(folder), *FAMILIES]
    env = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_critic_has_the_weights_of_a_checkpoint(family, checkpoints):
    policy = torch.load(checkpoints / f"{family}.pt")
    check_equal(load_critic(checkpoints / family / "actor" / "huggingface"), policy)


@pytest.mark.parametrize("family", ["llama", "qwen2_5_vl"])
def test_a_critic_loads_from_a_critic(family, tmp_path):
    tiny_policy(family).save_pretrained(tmp_path / "policy")
    critic = load_critic(tmp_path / "policy")
    with torch.no_grad():
        critic.score.weight.fill_(7.0)
    critic.save_pretrained(tmp_path / "critic")
    again = load_critic(tmp_path / "critic").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in critic.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_layer_is_refused(family, tmp_path):
    tiny_policy(family).save_pretrained(tmp_path)

    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [n for n in weights if ".layers.1.mlp." in n and "vision" not in n]:
            del weights[name]

    edit(tmp_path, drop)
    with pytest.raises(SftrlError, match=r"3 missing: .*layers\.1\.mlp\.down_proj") as error:
        load_critic(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_of_another_model_is_refused(tmp_path):
    tiny_policy("llama").save_pretrained(tmp_path)
    edit(tmp_path, lambda weights: weights.update({"model.layers.0.mlp.gate.bias": torch.zeros(3)}))
    with pytest.raises(SftrlError, match=r"no place for: model\.layers\.0\.mlp\.gate\.bias"):
        load_critic(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    tiny_policy("llama").save_pretrained(tmp_path)
    edit(tmp_path, lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}))
    with pytest.raises(SftrlError, match=r"another shape: model\.norm\.weight \(3,\), expected \(32,\)"):
        load_critic(tmp_path)


def test_a_model_without_a_token_classifier_is_refused(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=8, hidden_size=8, state_size=2, num_hidden_layers=1)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(SftrlError, match="no critic can be loaded.*MambaConfig"):
        load_critic(tmp_path)


def test_attention_is_that_of_the_configuration(tmp_path):
    tiny_policy("qwen2_5_vl").save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    config.num_labels = 1
    critic = verl_model.load_valuehead_model(str(tmp_path), torch.float32, config, False)
    used = {critic.config._attn_implementation, critic.model.language_model.config._attn_implementation}
    assert used == {"eager"}


def test_another_verl_is_refused(tmp_path, monkeypatch):
    import importlib.metadata

    tiny_policy("llama").save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.0")
    with pytest.raises(SftrlError, match=r"critic.*verl 0\.9\.1.*verl 0\.10\.0"):
        verl_model.load_valuehead_model(str(tmp_path), torch.float32, config, False)


def edit(folder: Path, change) -> None:
    """Change the weights of a folder in one file."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["architectures"]
