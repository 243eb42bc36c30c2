"""A recipe through a real Slurm of two nodes: submitted, cancelled, queued again, finished."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.cluster.slurm_cluster import PROGRAMS, SlurmCluster, processes_of, wait_until

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.e2e,
    pytest.mark.skipif(
        any(shutil.which(program) is None for program in PROGRAMS) or os.geteuid() != 0,
        reason="needs root and Debian's slurm-wlm and munge",
    ),
]

SMALL = [
    "budget.base.rows=256",
    "budget.base.steps=4",
    "budget.dialogues=null",
    "budget.eval.hands=4",
    "task.eval_splits=[id,rule_ood]",
]
"""Less pre-training: what is tested is the road, not the model."""


def submit(slurm: SlurmCluster, folder: Path, *overrides: str) -> int:
    """Submit the smoke run as a user does; the number of its job."""
    [job] = submit_all(slurm, folder, *overrides)
    return job


def submit_all(slurm: SlurmCluster, folder: Path, *overrides: str) -> list[int]:
    """Submit the smoke run as a user does; the numbers of its jobs."""
    sftrl = folder / "bin" / "sftrl"
    if not sftrl.exists():
        sftrl.parent.mkdir()
        sftrl.write_text(f'#!/bin/sh\nexec {sys.executable} -m sftrl_ext.cli "$@"\n')
        sftrl.chmod(0o755)
        (sftrl.parent / "ray").write_text(
            f'#!/bin/sh\nexec {sys.executable} -c "from ray.scripts.scripts import main; main()" "$@"\n'
        )
        (sftrl.parent / "ray").chmod(0o755)
    command = [str(sftrl), "run", "fig6_gp_l", "--scale", "smoke", "--launcher", "slurm"]
    command += ["--run-dir", str(folder / "run"), *SMALL, *overrides]
    env = {
        **slurm.env,
        "PATH": f"{sftrl.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(job) for job in re.findall(r"(?:Submitted batch|sbatch:) job (\d+)", done.stdout)]


def stages(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "run" / "state.json"
    if not path.exists():
        return {}
    return {stage["name"]: stage for stage in json.loads(path.read_text())["stages"]}


def log_of(folder: Path, job: int) -> str:
    path = folder / "run" / f"slurm-{job}.log"
    return path.read_text()[-4000:] if path.exists() else "no log"


def run_to_the_end(slurm: SlurmCluster, folder: Path, job: int) -> None:
    alive = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")
    wait_until(
        lambda: slurm.job_state(job) == "COMPLETED",
        900,
        f"the job did not complete: {log_of(folder, job)}",
        lambda: slurm.job_state(job) in (*alive, "COMPLETED"),
    )
    assert {stage["status"] for stage in stages(folder).values()} == {"done"}
    assert (folder / "run" / "report" / "report.md").is_file()


def test_a_run_is_cancelled_submitted_again_and_finished(tmp_path: Path) -> None:
    with SlurmCluster(tmp_path) as slurm:
        first = submit(slurm, tmp_path)
        wait_until(
            lambda: stages(tmp_path).get("init", {}).get("status") == "done",
            900,
            f"the init did not finish: {log_of(tmp_path, first)}",
            lambda: slurm.job_state(first) in ("PENDING", "RUNNING", "CONFIGURING"),
        )
        before = stages(tmp_path)["init"]
        assert slurm.ask("scancel", str(first)) == ""
        wait_until(lambda: slurm.job_state(first) == "CANCELLED", 60, "the job was not cancelled")
        wait_until(lambda: not processes_of(tmp_path / "run"), 60, "processes outlived the cancelled job")
        second = submit(slurm, tmp_path)
        run_to_the_end(slurm, tmp_path, second)
        assert stages(tmp_path)["init"] == before  # not trained again


def test_a_run_on_two_nodes_is_queued_again_by_slurm_and_finished(tmp_path: Path) -> None:
    with SlurmCluster(tmp_path) as slurm:
        job = submit(slurm, tmp_path, "scale.nnodes=2", "~arms.sft")
        wait_until(
            lambda: stages(tmp_path).get("init", {}).get("status") == "done",
            900,
            f"the init did not finish: {log_of(tmp_path, job)}",
            lambda: slurm.job_state(job) in ("PENDING", "RUNNING", "CONFIGURING"),
        )
        slurm.ask("scontrol", "requeue", str(job))
        wait_until(lambda: slurm.job_state(job) != "RUNNING", 60, "the job was not taken from its nodes")
        run_to_the_end(slurm, tmp_path, job)


def test_arms_run_as_tasks_of_an_array(tmp_path: Path) -> None:
    """Five jobs: data, start models, both arms at the same time on a node each, evaluation, report."""
    with SlurmCluster(tmp_path) as slurm:
        jobs = submit_all(slurm, tmp_path, "launcher.slurm.array=true", "launcher.slurm.exclusive=false")
        assert len(jobs) == 5
        run_to_the_end(slurm, tmp_path, jobs[-1])
        logs = {path.name for path in (tmp_path / "run").glob("slurm-*.log")}
        assert logs == {*(f"slurm-{job}.log" for job in jobs if job != jobs[2])} | {
            f"slurm-{jobs[2]}_{task}.log" for task in range(2)
        }
