"""Micro-batches of padded rows: the arithmetic, and verl's engine on a model that trains with SDPA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext import verl_version
from sftrl_ext.errors import SftrlError
from sftrl_ext.training import padded_batches
from sftrl_ext.training.padded_batches import count_runs, padded_tokens, runs_by_length

ROWS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(ROWS, st.data())
def test_runs_hold_every_row_once_and_go_by_length(lengths, data):
    parts = data.draw(st.integers(1, len(lengths)))
    runs = runs_by_length(lengths, parts)
    assert len(runs) == parts and all(runs)
    assert sorted(row for run in runs for row in run) == list(range(len(lengths)))
    for longer, shorter in zip(runs, runs[1:], strict=False):
        assert min(lengths[row] for row in longer) >= max(lengths[row] for row in shorter)


@given(ROWS, st.data())
def test_no_run_exceeds_the_cap_with_its_padding(lengths, data):
    cap = data.draw(st.integers(max(lengths), 2000))
    needed = count_runs(lengths, cap)
    for parts in range(needed, len(lengths) + 1):  # other ranks may need more
        assert max(padded_tokens(lengths, run) for run in runs_by_length(lengths, parts)) <= cap


def test_equal_rows_are_cut_into_equal_parts():
    assert [len(part) for part in runs_by_length([7] * 12, 4)] == [3, 3, 3, 3]


def test_another_verl_is_refused(monkeypatch):
    monkeypatch.setattr(verl_version, "VERL_VERSION", "0.9.0")
    pytest.importorskip("verl")
    for patch in (padded_batches.cap_padded_rows, padded_batches.entropy_row_by_row):
        with pytest.raises(SftrlError, match=r"verl 0\.9\.0, but verl"):
            patch(ModuleType("m"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("verl")
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    shape = ModelConfig(name="t", hidden_size=32, layers=2, heads=2, vocab_size=300)
    build_tiny_llama(folder, ["a text of 24 points"] * 4, shape, seed=0)
    return folder


LENGTHS, CAP = [30, 5, 17, 9, 30, 4, 12, 21], 64
"""Those of tests/training/engine_on_padded_rows.py, which imports verl."""


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("role", ["language_model", "value_model"])
def test_the_engine_of_a_gpu_scale_without_flash_attn(role, model):
    """verl's own worker on the composed config: actor and reference, and the critic."""
    env = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.engine_on_padded_rows", str(model), role],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    result = json.loads(line.partition(" ")[2])
    assert result["attention"] == "sdpa"
    assert ("log_probs" if role == "language_model" else "values") in result["names"]
    assert all(off < 1e-5 for off in result["off"].values())
    micro_batches = result["micro_batches"]
    assert sorted(length for rows in micro_batches for length in rows) == sorted(LENGTHS)
    assert all(len(rows) * max(rows) <= CAP for rows in micro_batches)


@pytest.mark.slow
def test_transformers_keeps_packed_rows_apart_under_sdpa_by_a_square_mask(model):
    """Packed rows without flash-attn, as docs/clusters.md has it: right, at the square of all tokens."""
    import torch
    from transformers import AutoModelForCausalLM, masking_utils

    packed = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    rows = [torch.arange(5, 5 + n) for n in (7, 4, 9)]
    ids, positions = torch.cat(rows)[None], torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        together = packed(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([packed(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    mask = masking_utils.create_causal_mask(
        config=packed.config,
        inputs_embeds=torch.zeros(1, 20, 32),
        attention_mask=None,
        past_key_values=None,
        position_ids=positions,
    )
    assert mask.shape == (1, 1, 20, 20)
