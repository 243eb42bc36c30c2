"""Tokens per second of the laptop's SFT: verl's trainer beside a plain loop over the same rows.

    python -m benchmarks.sft_floor <run> [--steps 20]

The run is a finished one of `fig6_gp_l` at `laptop`: its init and its rows are enough. The plain loop reads
the rows with the same data set, in the same batches and micro-batches, in one process, or in two that average
their gradients. The first steps of each are left out. Run it on free cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from benchmarks.processes import average_gradients, spawn
from sftrl_ext.experiments.plan import Stage, make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.files import read_jsonl
from sftrl_ext.hf_folder import load_model
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.training.sft_dataset import TurnSFTDataset

SKIPPED = 3
"""First steps left out: they allocate, and the data set encodes texts that later steps repeat."""


@dataclass(frozen=True)
class Job:
    """The SFT stage of a run: start model, rows, sizes and learning rate."""

    model: str
    rows: str
    batch: int
    micro: int
    lr: float
    max_length: int
    steps: int


def job_of(stage: Stage, steps: int) -> Job:
    """Sizes of a stage, from its command."""
    settings = dict(word.split("=", 1) for word in stage.command if "=" in word)
    return Job(
        settings["model.path"],
        settings["data.train_files"],
        int(settings["data.train_batch_size"]),
        int(settings["data.micro_batch_size_per_gpu"]),
        float(settings["optim.lr"]),
        int(settings["data.max_length"]),
        steps,
    )


def plain_loop(rank: int, ranks: int, job: Job) -> dict[str, float]:
    """One rank's share of every step: cross-entropy over the tokens of trained turns, one AdamW step."""
    model = load_model(job.model, torch.float32, "sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0)
    config = {"pad_mode": "no_padding", "max_length": job.max_length}
    dataset = TurnSFTDataset(job.rows, AutoTokenizer.from_pretrained(job.model), config)
    share, tokens, start = job.batch // ranks, 0, 0.0
    for step in range(job.steps):
        if step == SKIPPED:
            start, tokens = time.perf_counter(), 0
        first = (step * job.batch + rank * share) % (len(dataset) - share)
        rows = dataset.__getitems__(list(range(first, first + share)))
        trained = sum(int(row["loss_mask"].sum()) for row in rows)
        for at in range(0, share, job.micro):
            (_loss(model, rows[at : at + job.micro]) / trained).backward()
        average_gradients(model, ranks)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(len(row["input_ids"]) for row in rows)
    seconds = time.perf_counter() - start
    return {
        "tokens_per_s": round(ranks * tokens / seconds),
        "step_s": round(seconds / (job.steps - SKIPPED), 3),
    }


def _loss(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    ids = pad_sequence([torch.as_tensor(row["input_ids"]) for row in rows], batch_first=True)
    mask = pad_sequence([torch.as_tensor(row["loss_mask"]) for row in rows], batch_first=True)[:, 1:]
    length = torch.tensor([len(row["input_ids"]) for row in rows])
    attended = (torch.arange(ids.shape[1]) < length[:, None]).long()
    logits = model(ids, attention_mask=attended).logits[:, :-1]
    return (-logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0] * mask).sum()


def verl_loop(stage: Stage, layout: RunLayout, steps: int) -> dict[str, float]:
    """The same by the stage's own command, timed by the lines of its metrics."""
    folder = Path(tempfile.mkdtemp())
    output = str(layout.checkpoints(stage.name).parent)
    command = [word.replace(output, str(folder)) for word in stage.command]
    command += [f"trainer.total_training_steps={steps}", "trainer.save_freq=-1"]
    metrics = folder / "metrics.jsonl"
    env = {**os.environ, **stage.env, "VERL_FILE_LOGGER_PATH": str(metrics)}
    times: list[float] = []
    try:
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
            while process.poll() is None:
                times += [time.perf_counter()] * (len(_logged(metrics)) - len(times))
                time.sleep(0.005)
        if process.returncode or len(times) < steps:
            raise SystemExit((folder / "log.txt").read_text()[-3000:])
        tokens = [line["data"]["train/global_tokens"] for line in _logged(metrics)][SKIPPED:steps]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = times[steps - 1] - times[SKIPPED - 1]
    return {"tokens_per_s": round(sum(tokens) / seconds), "step_s": round(seconds / len(tokens), 3)}


def _logged(metrics: Path) -> list[dict[str, Any]]:
    """Lines of steps that are whole."""
    return list(read_jsonl(metrics, torn_tail=True)) if metrics.is_file() else []


def main() -> None:
    """Print tokens per second of the plain loop and of verl's trainer, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    layout = RunLayout(options.run.resolve())
    plan = make_plan(from_yaml(layout.recipe), layout.root)
    stage = next(stage for stage in plan if stage.kind == "sft" and stage.arm != "init")
    job = job_of(stage, options.steps)
    shown: dict[str, Any] = {"cores": os.cpu_count(), "steps": options.steps}
    for name, ranks, threads in (
        ("plain, one core", 1, 1),
        ("plain, one process of two threads", 1, 2),
        ("plain, two processes", 2, 1),
    ):
        shown[name] = spawn(plain_loop, ranks, threads, job)[0]
    fastest = max(run["tokens_per_s"] for run in shown.values() if isinstance(run, dict))
    shown["verl"] = verl_loop(stage, layout, options.steps)
    shown["verl over the plain loop"] = round(shown["verl"]["tokens_per_s"] / fastest, 2)
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
