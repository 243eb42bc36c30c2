"""verl's SFT trainer on an anchored loss: what it logs is what plain models give, before and after a step."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftrl_ext.experiments.recipe.schedules import sft_schedule
from sftrl_ext.training.engine_settings import LOSSES, engine_env
from sftrl_ext.training.sft_dataset import TurnSFTDataset
from sftrl_ext.training.sft_losses import token_kl
from tests.backends.launch import launch_sft
from tests.backends.tiny import save_folder
from tests.training.image_dataset import sft_config

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TEXTS = [("abc", "cba"), ("aabb", "bbaa"), ("fg", "gf"), ("k", "kkkkk")]


@torch.no_grad()
def plain(folder, start, file):
    """Mean loss, log-likelihood and divergence of the learned tokens."""
    models = [
        AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).eval() for one in (folder, start)
    ]
    tokenizer = AutoTokenizer.from_pretrained(start)
    found = []
    for row in (TurnSFTDataset(str(file), tokenizer, sft_config(), None)[n] for n in range(len(TEXTS))):
        learned = row["loss_mask"][1:] == 1
        logits = [model(row["input_ids"][None]).logits[0, :-1][learned] for model in models]
        log_prob = logits[0].log_softmax(-1).gather(1, row["input_ids"][1:][learned][:, None])[:, 0]
        kl = token_kl(*logits)
        found.append(torch.stack([LOSSES["dft"].term(log_prob) + 0.5 * kl, -log_prob, kl]))
    return torch.cat(found, dim=1).mean(1).tolist()


def test_the_trainer_minimizes_the_chosen_loss(tmp_path, monkeypatch):
    model = save_folder(tmp_path / "model")
    rows = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in TEXTS
    ]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"messages": rows}), file)
    for name, value in engine_env(loss="dft_kl", kl_coef=0.5).items():
        monkeypatch.setenv(name, value)
    overrides = {
        "model.path": model,
        "data.train_files": file,
        "data.train_batch_size": len(TEXTS),
        "data.micro_batch_size_per_gpu": 2,
        "data.max_length": 64,
        "trainer.total_epochs": 2,
        "trainer.total_training_steps": 2,
        "trainer.save_freq": 1,
        # A warm-up over both steps: the first one has half the rate, not 0.
        **dict(override.split("=") for override in sft_schedule("constant", 2, 1.0)),
    }
    metrics = launch_sft(overrides, tmp_path)
    after_one = tmp_path / "sft" / "global_step_1" / "huggingface"
    for step, folder in zip((one for one in metrics if "train/loss" in one), (model, after_one), strict=True):
        expected = plain(folder, model, file)
        logged = [step[f"train/{name}"] for name in ("loss", "nll", "kl_start")]
        # A metric that the trainer does not know is logged as a list over ranks.
        assert [one[0] if isinstance(one, list) else one for one in logged] == pytest.approx(
            expected, rel=1e-3, abs=1e-6
        )
    assert plain(after_one, model, file)[2] > 1e-6
