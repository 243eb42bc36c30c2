"""The attention kernel that every training command ends up with, as verl's own config objects hold it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner
from sftrl_ext.experiments.cluster.check_nodes import _probe, _versions
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe import attention
from sftrl_ext.experiments.recipe.attention import flash_attn_fault, pin_attention, require_attention
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, load_recipe, recipe_files
from tests.experiments.recipe.composing import config_of

RECIPES = sorted({path.stem for path in recipe_files().values()})
GPU_SCALES = ("gpu", "node")
ABOUT_MODELS = re.compile(r"(backend|sft_backend|algorithm|(actor_rollout_ref\.|critic\.)?model\.(?!path))")
_found = {}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("transformers")
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny_llama(folder, ["24"], ModelConfig(name="t", hidden_size=32, layers=1, heads=1), seed=0)
    return str(folder)


@pytest.fixture
def without_flash(monkeypatch):
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: "flash-attn is not installed")


@pytest.fixture
def with_flash(monkeypatch):
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: None)


@cache
def built(text):
    """(attention of transformers, packed rows) of a model, from the object that verl makes of its config."""
    from verl.utils.config import omega_conf_to_dataclass

    config = omega_conf_to_dataclass(OmegaConf.create(text))
    model = getattr(config, "model", config)
    assert type(model).__name__ == "HFModelConfig"
    return model.hf_config._attn_implementation, model.use_remove_padding


def kernels(recipe, run_dir, folder):
    """What `built` gives for every model of a recipe, with a small model in the place of its own."""
    distinct = {}  # commands that say the same of their models are composed once
    for stage in make_plan(recipe, run_dir):
        if stage.kind in ("sft", "rl"):
            of_models = [word for word in stage.command if ABOUT_MODELS.match(word)]
            distinct.setdefault(tuple(of_models), stage)
    found = set()
    for words, stage in distinct.items():
        if words not in _found:
            config = config_of(stage.command)
            # verl's worker builds actor and reference from the one config of the actor's model.
            nodes = [config.model] if stage.kind == "sft" else [config.actor_rollout_ref.model, config.critic]
            for node in nodes:
                getattr(node, "model", node).path = folder
            _found[words] = {built(OmegaConf.to_yaml(node)) for node in nodes}
        found |= _found[words]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", GPU_SCALES)
@pytest.mark.parametrize("name", RECIPES)
def test_without_flash_attn_every_model_has_sdpa_on_padded_rows(name, scale, model, without_flash, tmp_path):
    pytest.importorskip("verl")
    assert kernels(load_recipe(name, scale), tmp_path, model) == {("sdpa", False)}


@pytest.mark.slow
def test_with_flash_attn_every_model_has_it_on_packed_rows(model, with_flash, tmp_path):
    pytest.importorskip("verl")
    for recipe in (load_recipe("fig6_gp_l", "node"), load_recipe("fig6_gp_vl", "gpu")):
        assert kernels(recipe, tmp_path, model) == {("flash_attention_2", True)}
    chosen = load_recipe("fig6_gp_l", "node", ["scale.attention=sdpa"])
    assert kernels(chosen, tmp_path, model) == {("sdpa", False)}
    # Its cross-attention takes no packed rows, whatever is installed.
    mllama = load_recipe("fig6_gp_vl", "node", ["model=vl/llama3_2_vision_11b"])
    assert kernels(mllama, tmp_path, model) == {("sdpa", False)}


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_a_cpu_has_sdpa_whatever_is_installed(scale, with_flash, tmp_path):
    recipe = load_recipe("fig6_gp_l", scale)
    assert str(attention.resolve_attention(recipe)) == "sdpa (scale.backend is cpu)"
    assert not any("attn_impl" in word for stage in make_plan(recipe, tmp_path) for word in stage.command)
    with pytest.raises(SftrlError, match=r"scale\.attention: found flash_attention_2 with scale\.backend"):
        load_recipe("fig6_gp_l", scale, ["scale.attention=flash_attention_2"])


def test_a_misspelt_kernel_gets_the_nearest_right_one():
    with pytest.raises(SftrlError, match=r"scale\.attention: .*Did you mean 'flash_attention_2'"):
        load_recipe("fig6_gp_l", "gpu", ["scale.attention=flash_attn2"])


def test_plan_names_the_kernel_and_the_reason(without_flash, capsys):
    assert main(["plan", "fig6_gp_l", "--scale", "node"]) == 0
    assert "attention: sdpa (flash-attn is not installed)" in capsys.readouterr().out
    assert main(["plan", "fig6_gp_l", "--scale", "node", "scale.attention=flash_attention_2"]) == 0
    assert "attention: flash_attention_2 (scale.attention)" in capsys.readouterr().out


@pytest.fixture
def no_stages(monkeypatch):
    """A runner that begins a run and ends before its first stage."""
    monkeypatch.setattr(runner.Runner, "run", lambda self, stages=None: None)


def test_a_run_keeps_the_kernel_it_was_begun_with(monkeypatch, no_stages, tmp_path):
    recipe, console = load_recipe("fig6_gp_l", "gpu"), Console(quiet=True)
    assert recipe.scale.attention == "auto"
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: "flash-attn is not installed")
    runner.start_or_resume(recipe, tmp_path / "run", console)
    assert from_yaml(tmp_path / "run" / "recipe.yaml").scale.attention == "sdpa"
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: None)  # installed since
    runner.start_or_resume(recipe, tmp_path / "run", console)
    assert from_yaml(tmp_path / "run" / "recipe.yaml").scale.attention == "sdpa"
    other = load_recipe("fig6_gp_l", "gpu", ["scale.attention=flash_attention_2"])
    with pytest.raises(SftrlError, match="a run of another recipe is there"):
        runner.start_or_resume(other, tmp_path / "run", console)


def test_a_run_with_flash_attn_is_refused_where_it_is_missing(monkeypatch, no_stages, tmp_path):
    console = Console(quiet=True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: None)
    runner.start_run(load_recipe("fig6_gp_l", "gpu"), tmp_path / "run", console)
    monkeypatch.setattr(attention, "flash_attn_fault", lambda: "flash-attn is not installed")
    said = r"scale\.attention is flash_attention_2, but flash-attn is not installed.*scale\.attention=sdpa"
    with pytest.raises(SftrlError, match=said):
        runner.resume_run(tmp_path / "run", console)
    asked = load_recipe("fig6_gp_l", "gpu", ["scale.attention=flash_attention_2"])
    with pytest.raises(SftrlError, match=said):
        runner.start_run(asked, tmp_path / "other", console)
    assert not (tmp_path / "other").exists()


def test_a_driver_without_flash_attn_may_use_nodes_that_have_it(without_flash, tmp_path):
    """A login node composes; the nodes are checked."""
    recipe = load_recipe("fig6_gp_l", "cluster", ["scale.attention=flash_attention_2"])
    require_attention(recipe, on_cluster=True)
    trained = [stage.command for stage in make_plan(recipe, tmp_path) if stage.kind in ("sft", "rl")]
    assert trained and all("--flash-attn" in command for command in trained)
    plain = make_plan(load_recipe("fig6_gp_l", "cluster"), tmp_path)
    assert not any("--flash-attn" in stage.command for stage in plain)


@pytest.mark.slow
def test_a_node_without_flash_attn_is_refused_if_the_run_needs_it(tmp_path):
    """The check as it runs on a node."""
    pytest.importorskip("verl")
    if flash_attn_fault() is None:
        pytest.skip("flash-attn is installed here")
    assert _probe(_versions(), str(tmp_path))() == []
    [fault] = _probe(_versions(), str(tmp_path), flash_attn=True)()
    assert "flash-attn cannot be imported (ModuleNotFoundError" in fault and "scale.attention=sdpa" in fault


@pytest.fixture
def importing(monkeypatch):
    """Puts a module in the place of flash_attn."""

    def put(module):
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        flash_attn_fault.cache_clear()
        return flash_attn_fault()

    yield put
    flash_attn_fault.cache_clear()


def test_a_package_of_that_name_without_its_functions_is_not_flash_attn_2(importing):
    """FlashAttention 4 installs ``flash_attn.cute`` alone."""
    module = ModuleType("flash_attn")
    assert "flash_attn_func" in importing(module)
    module.flash_attn_func = module.flash_attn_varlen_func = print
    assert importing(module) is None


def test_a_build_that_cannot_be_loaded_is_not_flash_attn(tmp_path, monkeypatch):
    (tmp_path / "flash_attn.py").write_text("raise OSError('undefined symbol: _ZN3c104cuda')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    flash_attn_fault.cache_clear()
    assert flash_attn_fault() == "flash-attn cannot be imported: OSError: undefined symbol: _ZN3c104cuda"
    flash_attn_fault.cache_clear()


def test_pinning_twice_changes_nothing(without_flash):
    once = pin_attention(load_recipe("fig6_gp_l", "gpu"))
    assert pin_attention(once) == once
    assert replace(once.scale, attention="auto") == load_recipe("fig6_gp_l", "gpu").scale
