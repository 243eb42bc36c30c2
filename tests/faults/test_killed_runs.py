"""Runs that are killed, run out of disk or lose a process end as an undisturbed one does, once resumed.

Each fault comes at a random moment of a seed, ``SFTRL_FAULT_SEED``. None is begun after
``SFTRL_FAULT_SECONDS``. A finished run at scale smoke may be given as ``SFTRL_FAULT_RUN``.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

pytest.importorskip("verl")

from sftrl_ext.experiments.subprocesses import end_tree, kill_leftovers
from sftrl_ext.files import read_json
from sftrl_ext.runs.layout import RunLayout
from tests.experiments.evaluation.eval_runs import stored
from tests.experiments.smoke.smoke_runs import (
    RL,
    SFT,
    SFTRL,
    assert_same_rl,
    assert_same_sft,
    kill,
    process_of,
    product,
    resume,
    sftrl,
    wait_until,
    with_stage_undone,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

SEED = int(os.environ.get("SFTRL_FAULT_SEED", "0"))
END = time.monotonic() + float(os.environ.get("SFTRL_FAULT_SECONDS", "7200"))
PATIENCE_S = 900

STAGES = ("data", "model", "base", "dialogues", "init", SFT, RL, "eval", "report")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has disturbed."""
    given = os.environ.get("SFTRL_FAULT_RUN")
    if given:
        return RunLayout(Path(given).resolve())
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    sftrl("run", "fig6_gp_l", "--scale", "smoke", "--run-dir", run_dir)
    return RunLayout(run_dir)


@pytest.fixture(scope="module")
def table():
    """A line of each fault, printed at the end."""
    lines = []
    yield lines
    ends = [line.rpartition("  ")[2] for line in lines]
    counts = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends)))
    sys.stdout.write("\n".join(["", f"{len(lines)} faults, seed {SEED}: {counts}", *lines, ""]))


class Disturbed:
    """A copy of the run in which one stage runs again, and what became of it."""

    def __init__(self, whole, folder, fault, stage, table):
        if time.monotonic() > END:
            pytest.skip("the time for faults is over")
        self.whole, self.fault, self.stage, self.table = whole, fault, stage, table
        self.random = random.Random(f"{SEED}/{fault}/{stage}")
        self.layout = with_stage_undone(whole, folder / "run", stage)
        self.ending = ""

    def start(self, **options):
        """Run the stage; returns once it has a process."""
        runner = resume(self.layout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
        record = self.layout.stage(self.stage) / "process.json"
        wait_until(record.exists, runner)
        return runner

    def moment(self):
        """Seconds from the start of the stage."""
        [entry] = [e for e in read_json(self.whole.state)["stages"] if e["name"] == self.stage]
        return self.random.uniform(0, entry["wall_s"])

    def kill(self):
        """Kill stage and runner at a random moment, or after the end of the stage."""
        runner, moment = self.start(), self.moment()
        try:
            runner.wait(moment)
            self.ending = "ended before"
        except subprocess.TimeoutExpired:
            kill(runner, self.layout, self.stage)
            self.ending = f"killed at {moment:.1f} s"
        runner.stderr.close()

    def end(self, runner):
        """Wait for the end of a run, which is good, or an error in one line."""
        try:
            _, error = runner.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            end_tree(psutil.Process(runner.pid))
            self.note("HUNG")
            raise
        last = error.strip().splitlines()[-1:] or ["no message"]
        self.ending += f", status {runner.returncode}" + (f" ({last[0][:90]})" if runner.returncode else "")
        assert runner.returncode in (0, 2), error
        assert runner.returncode == 0 or last[0].startswith("error: "), error

    def note(self, result):
        self.table.append(f"{self.fault:14} {self.stage:16} {self.ending}  {result}")

    def resume_and_compare(self):
        """Resume, and compare with the run that was not disturbed."""
        done = subprocess.run(
            [*SFTRL, "resume", str(self.layout.root)], capture_output=True, text=True, timeout=PATIENCE_S
        )
        if done.returncode:
            self.note("NOT MENDED")
            raise AssertionError(done.stdout[-4000:] + done.stderr[-2000:])
        try:
            assert_same(self.whole, self.layout, self.stage)
        except AssertionError:
            self.note("DIFFERS")
            raise
        self.note("equal")


def assert_same(whole, layout, stage):
    """Two runs have the same product of a stage."""
    kinds = {entry["name"]: entry["kind"] for entry in read_json(whole.state)["stages"]}
    assert {entry["status"] for entry in read_json(layout.state)["stages"]} == {"done"}
    if kinds[stage] == "sft":
        assert_same_sft(whole, layout, stage)
    elif kinds[stage] == "rl":
        assert_same_rl(whole, layout, stage)
    elif stage == "eval":
        [records, expected] = [sorted(stored(run)[0], key=_name) for run in (layout, whole)]
        assert records == expected
        assert sorted(map(str, stored(layout)[1])) == sorted(map(str, stored(whole)[1]))
    else:
        names = {"data": "*.parquet", "model": "*.safetensors", "report": "*.svg"}
        files = sorted(product(whole, stage).glob(names[stage]))
        assert files
        for file in files:
            assert (product(layout, stage) / file.name).read_bytes() == file.read_bytes(), file.name


def _name(record):
    return record["stage"], record["step"], record["split"]


@pytest.fixture
def disturb(whole, tmp_path, table):
    runs = []

    def disturbed(fault, stage):
        runs.append(Disturbed(whole, tmp_path, fault, stage, table))
        return runs[-1]

    yield disturbed
    for run in runs:
        kill_leftovers(run.layout.stage(run.stage) / "process.json")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_resumed(disturb, stage):
    run = disturb("kill -9", stage)
    run.kill()
    run.resume_and_compare()


@pytest.mark.parametrize("stage", [SFT, RL])
def test_times_of_files_mean_nothing(disturb, stage):
    run = disturb("clock skew", stage)
    run.kill()
    for path in sorted(run.layout.root.rglob("*")):
        time_s = time.time() + run.random.uniform(-1e8, 1e8)
        os.utime(path, (time_s, time_s), follow_symlinks=False)
    run.resume_and_compare()


@pytest.mark.parametrize(
    ("stage", "name"), [(SFT, "python"), (RL, "ray::"), (RL, "raylet"), (RL, "gcs_server")]
)
def test_a_lost_process_is_no_lost_run(disturb, stage, name):
    run = disturb(f"lost {name}", stage)
    runner, moment = run.start(), run.moment()

    record = run.layout.stage(stage) / "process.json"

    def victims():
        if not record.exists():
            return []
        trainer = psutil.Process(process_of(run.layout, stage))  # SFT's only process
        tree = [trainer, *trainer.children(recursive=True)]
        return sorted(process.pid for process in tree if process.name().startswith(name))

    try:
        runner.wait(moment)
        run.ending = "ended before"
    except subprocess.TimeoutExpired:
        wait_until(lambda: bool(victims()) or not record.exists(), runner)
        found = victims()
        if found:
            victim = psutil.Process(run.random.choice(found))
            run.ending = f"killed {victim.name()} after {moment:.1f} s"
            victim.kill()
        else:
            run.ending = "ended before"
    run.end(runner)
    run.resume_and_compare()


@pytest.mark.parametrize("stage", ["data", "model", SFT, RL, "eval", "report"])
def test_a_full_disk_is_an_error_that_resume_mends(disturb, stage):
    run = disturb("full disk", stage)
    needed = sum(path.stat().st_size for path in product(run.whole, stage).rglob("*") if path.is_file())
    # A start model is written beside its folder, which is then renamed: the whole run is on the disk.
    folder = run.layout.root if stage == "model" else product(run.layout, stage)
    with small_disk(folder, int(needed * run.random.uniform(0.1, 0.8))) as (
        options,
        enlarge,
    ):
        runner = resume(run.layout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
        run.end(runner)
        assert "status 2" in run.ending
        enlarge()
        run.resume_and_compare()


@contextmanager
def small_disk(folder, size):
    """A folder on a file system of so many free bytes; without the right to mount, a limit on a file's size.

    Yields:
        Options of the process that is to fail, and what ends the limit.
    """
    kept = folder.with_name(folder.name + ".kept")
    if folder.exists():
        folder.rename(kept)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        taken = sum(-(-path.lstat().st_size // 4096) * 4096 for path in kept.rglob("*"))  # in pages
        mount = ["mount", "-t", "tmpfs", "-o", f"size={taken + size}", "tmpfs", str(folder)]
        if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            _copy_into(kept, folder)
            larger = ["mount", "-o", "remount,size=4g", str(folder)]
            yield {}, lambda: subprocess.run(larger, check=True)
        else:
            _copy_into(kept, folder)
            limit = (size // 4, resource.RLIM_INFINITY)
            yield {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)}, lambda: None


def _copy_into(kept, folder):
    if kept.exists():
        shutil.copytree(kept, folder, dirs_exist_ok=True, symlinks=True)
