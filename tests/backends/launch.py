"""Starting one of verl's trainers on the CPU, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sftrl_ext.paths import configs_dir


def launch_sft(overrides: dict[str, object], folder: Path) -> list[dict]:
    """Run verl's SFT trainer in one process; checkpoints go to ``folder / "sft"``."""
    common = {
        "sft_backend": "cpu",
        "data.use_dynamic_bsz": "false",
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.0,
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": 1,
        "trainer.experiment_name": "e2e",
        "trainer.default_local_dir": folder / "sft",
    }
    module = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    module += ["-m", "verl.trainer.sft_trainer"]
    return launch(module, "sft", {**common, **overrides}, folder, folder / "m.jsonl")


def launch(
    module: list[str],
    config: str,
    overrides: dict[str, object],
    folder: Path,
    metrics: Path,
    timeout: int = 400,
) -> list[dict]:
    """Run a verl trainer; its metrics, one dictionary per logged step."""
    command = [sys.executable, *module, "--config-path", str(configs_dir()), "--config-name", config]
    command += [f"{key}={value}" for key, value in overrides.items()] + [f"hydra.run.dir={folder}"]
    env = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_FILE_LOGGER_PATH": str(metrics)}
    env |= {"RAY_ADDRESS": "local"}  # as the product's commands: whatever other Ray the machine has
    log = metrics.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(
            command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT, timeout=timeout
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [{"step": line["step"], **line["data"]} for line in lines]
