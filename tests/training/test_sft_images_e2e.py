"""verl's SFT trainer on rows that show images: the loss is a plain model's, and the eyes learn too."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

import torch
from transformers import AutoModelForImageTextToText

from sftrl_ext.training.sft_dataset import TurnSFTDataset
from tests.backends.launch import launch_sft
from tests.backends.tiny_vl import plain_model
from tests.training.image_dataset import build, processor, sft_config, tokenizer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of three steps on image rows and text rows, and its metrics."""
    folder = tmp_path_factory.mktemp("sft_images")
    plain_model().save_pretrained(folder / "model")
    processor().save_pretrained(folder / "model")
    files = [
        build(folder / "image.parquet", "suboptimal", rows=ROWS - 2),
        build(folder / "text.parquet", "sft", rows=2, look=None),
    ]
    overrides = {
        "model.path": folder / "model",
        "data.train_files": f"[{','.join(files)}]",
        # Every step sees every row, some with images and some without.
        "data.train_batch_size": ROWS,
        "data.micro_batch_size_per_gpu": 3,
        "data.max_length": 1024,
        "trainer.total_epochs": 3,
        "trainer.total_training_steps": 3,
        "trainer.save_freq": 3,
    }
    metrics = launch_sft(overrides, folder)
    return folder, files, metrics


@torch.no_grad()
def plain_loss(folder, files, blind=False):
    """Mean negative log-likelihood of the trained tokens."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    data = TurnSFTDataset(files, tokenizer(), sft_config(), processor())
    losses = []
    for row in (data[n] for n in range(ROWS)):
        inputs = dict(row["multi_modal_inputs"])
        if blind and inputs:
            inputs["pixel_values"] = torch.zeros_like(inputs["pixel_values"])
        logits = model(input_ids=row["input_ids"][None], position_ids=row["position_ids"][:, None], **inputs)
        trained = row["loss_mask"][1:] == 1
        chosen = logits.logits[0, :-1][trained].log_softmax(-1)
        losses.append(-chosen.gather(-1, row["input_ids"][1:][trained][:, None]))
    return torch.cat(losses).mean().item()


def test_the_loss_is_that_of_a_plain_model_that_sees(run):
    folder, files, metrics = run
    losses = [step["train/loss"] for step in metrics if "train/loss" in step]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert losses[0] == pytest.approx(plain_loss(folder / "model", files), rel=1e-4)
    assert losses[0] != pytest.approx(plain_loss(folder / "model", files, blind=True), rel=1e-3)


def test_the_vision_encoder_learns(run):
    folder, files, _ = run
    saved = folder / "sft" / "global_step_3" / "huggingface"
    before, after = (
        AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).model.visual.state_dict()
        for path in (folder / "model", saved)
    )
    assert all((after[name] - before[name]).abs().max() > 0 for name in before)
    assert plain_loss(saved, files) < plain_loss(folder / "model", files)
