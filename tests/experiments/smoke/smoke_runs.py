"""A finished run at scale smoke, copies of it in which one stage runs again, and their end by ``kill -9``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftrl_ext.files import read_json, read_jsonl, write_json
from sftrl_ext.runs.layout import RunLayout

SFTRL = [sys.executable, "-m", "sftrl_ext.cli"]
SFT, RL = "sft-lr0.0002-s0", "rl-lr0.0002-s0"


def sftrl(*args: object) -> str:
    """Output of a command that ends well."""
    done = subprocess.run([*SFTRL, *map(str, args)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def product(layout: RunLayout, stage: str) -> Path:
    """Folder that a stage fills."""
    products = {"data": layout.data, "model": layout.start_model, "report": layout.report}
    return {**products, "eval": layout.records.parent}.get(stage, layout.stage(stage))


def with_stage_undone(whole: RunLayout, run_dir: Path, stage: str) -> RunLayout:
    """A copy of a finished run in which one stage has not run; the paths in its plan follow the folder."""
    layout = RunLayout(run_dir)
    shutil.copytree(whole.root, layout.root)
    shutil.rmtree(product(layout, stage))
    shutil.rmtree(layout.stage(stage), ignore_errors=True)
    state = read_json(layout.state)
    for entry in state["stages"]:
        if entry["name"] == stage:
            entry.update(status="waiting", launches=0)
    write_json(layout.state, state)
    return layout


def resume(layout: RunLayout, **options: Any) -> subprocess.Popen[str]:
    """Start `sftrl resume` of a run."""
    return subprocess.Popen(
        [*SFTRL, "resume", str(layout.root)], text=True, start_new_session=True, **options
    )


def wait_until(condition: Callable[[], bool], runner: subprocess.Popen[str], patience: float = 300) -> None:
    """Wait for something that happens while a run goes on."""
    deadline = time.monotonic() + patience
    while not condition():
        assert runner.poll() is None, "the runner ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_of(layout: RunLayout, stage: str) -> int:
    """Process id of a running stage."""
    return int(read_json(layout.stage(stage) / "process.json")["pid"])


def kill(runner: subprocess.Popen[str], layout: RunLayout, stage: str) -> None:
    """Kill the runner and the stage, as a crash of the machine does."""
    child = process_of(layout, stage)
    os.kill(runner.pid, signal.SIGKILL)
    os.killpg(child, signal.SIGKILL)
    runner.wait()


def assert_same_sft(whole: RunLayout, layout: RunLayout, stage: str = SFT) -> None:
    """The same weights to the byte, and the same losses."""
    [*_, last] = sorted(whole.checkpoints(stage).glob("global_step_*"), key=lambda path: int(path.name[12:]))
    relative = (last / "huggingface" / "model.safetensors").relative_to(whole.root)
    assert (layout.root / relative).read_bytes() == (whole.root / relative).read_bytes()
    losses = [[e["data"]["train/loss"] for e in read_jsonl(run.metrics(stage))] for run in (whole, layout)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def assert_same_rl(whole: RunLayout, layout: RunLayout, stage: str = RL) -> None:
    """The same episodes, to the token; the weights agree but for the rounding of sums."""
    from safetensors.torch import load_file

    steps = [{e["step"]: e["data"] for e in read_jsonl(run.metrics(stage))} for run in (whole, layout)]
    assert set(steps[0]) == set(steps[1]) == {1, 2}
    for step in (1, 2):
        for key in ("tokens/step_generated", "episode/reward_total", "turns/mean", "tokens/generated"):
            assert steps[1][step][key] == pytest.approx(steps[0][step][key], rel=1e-9), (step, key)
    relative = f"stages/{stage}/checkpoints/global_step_2/actor/huggingface/model.safetensors"
    weights = [load_file(run.root / relative) for run in (whole, layout)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert (weights[1][name] - tensor).abs().max() < 1e-5, name
