"""Packages in examples/ and one of `sftrl new task`: their own tests, and a run of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftrl_ext.files import read_json
from sftrl_ext.new_task import write_task
from sftrl_ext.plugins import VARIABLE

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/recipe.yaml"))


def run(module, *words, folder, timeout):
    """Run a module of Python with this checkout, and no plug-in of the tests."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_tests_of_an_example_pass(example):
    run("pytest", "-q", "-p", "no:cacheprovider", example, folder=example, timeout=600)


def test_the_test_of_a_new_task_passes(tmp_path):
    write_task("my_sums", tmp_path)
    run("pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path / "my_sums", timeout=600)


@pytest.mark.nightly
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", [*(path.name for path in EXAMPLES), "new task"])
def test_it_runs_at_smoke_from_another_folder(name, tmp_path):
    pytest.importorskip("verl")
    if name == "new task":
        write_task("my_sums", tmp_path)
        package = tmp_path / "my_sums"
    else:
        package = Path(shutil.copytree(ROOT / "examples" / name, tmp_path / name))
    run_dir = tmp_path / "run"
    words = ("run", package / "recipe.yaml", "--scale", "smoke", "--run-dir", run_dir)
    run("sftrl_ext.cli", *words, folder=tmp_path, timeout=1800)
    state = read_json(run_dir / "state.json")
    assert {stage["status"] for stage in state["stages"]} == {"done"}
    assert list(state["plugins"]) and (run_dir / "report" / "report.md").is_file()
