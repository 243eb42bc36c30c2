"""A micro-batch of Qwen2.5-VL without a picture, as verl's forward pass reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
import verl  # noqa: F401  loads the plug-in
from verl.models.transformers import qwen2_vl

from sftrl_ext.hf_folder import load_model
from tests.backends.tiny_families import BUILDERS


def test_rows_without_pictures_still_run_the_vision_encoder(tmp_path: Path) -> None:
    BUILDERS["qwen2_5_vl"](tmp_path / "m")
    model = load_model(tmp_path / "m", torch.float32).model
    ids = torch.tensor([[10, 11, 12]])
    embeds, mask = qwen2_vl._get_input_embeds(model, ids, torch.ones_like(ids))
    assert torch.equal(embeds, model.get_input_embeddings()(ids))
    assert mask.tolist() == [[1, 1, 1]]
    embeds.sum().backward()
    assert all(p.grad is not None for p in model.visual.parameters())


def test_rows_with_pictures_are_read_by_verls_own_function(tmp_path: Path) -> None:
    BUILDERS["qwen2_5_vl"](tmp_path / "m")
    model = load_model(tmp_path / "m", torch.float32).model
    vision = model.config.vision_config
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    grid = torch.tensor([[1, 4, 4]])
    ids = torch.tensor([[10, *[model.config.image_token_id] * 4, 11]])
    pixels = torch.rand(16, size)
    embeds, _ = qwen2_vl._get_input_embeds(model, ids, None, pixels, None, grid, None)
    features, _ = qwen2_vl.unpack_visual_output(model.visual(pixels, grid_thw=grid))
    assert torch.allclose(embeds[0, 1:5], features)
