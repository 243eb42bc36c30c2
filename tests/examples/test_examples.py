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


def run(module, *words, folder, timeout, env=os.environ):
    """Run a module of Python with this checkout, and no plug-in of the tests."""
    env = {name: value for name, value in env.items() if name != VARIABLE}
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


def package_of(name, folder):
    """A package outside the checkout: a copy of an example, or a new task."""
    if name == "new task":
        write_task("my_sums", folder)
        return folder / "my_sums"
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name))


def check_whole(run_dir):
    state = read_json(run_dir / "state.json")
    assert {stage["status"] for stage in state["stages"]} == {"done"}
    assert list(state["plugins"]) and (run_dir / "report" / "report.md").is_file()


NAMES = [*(path.name for path in EXAMPLES), "new task"]


@pytest.mark.nightly
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_at_smoke_from_another_folder(name, tmp_path):
    pytest.importorskip("verl")
    recipe, run_dir = package_of(name, tmp_path) / "recipe.yaml", tmp_path / "run"
    words = ("run", recipe, "--scale", "smoke", "--run-dir", run_dir)
    run("sftrl_ext.cli", *words, folder=tmp_path, timeout=1800)
    check_whole(run_dir)


@pytest.mark.nightly
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_at_smoke_on_two_nodes(name, tmp_path):
    """The plug-in reaches the rollout and the trainer of a node that was started without it."""
    pytest.importorskip("verl")
    from tests.backends.two_nodes import LocalCluster

    recipe, run_dir = package_of(name, tmp_path) / "recipe.yaml", tmp_path / "run"
    words = ["run", recipe, "--scale", "smoke", "--run-dir", run_dir, "scale.nnodes=2"]
    # One SFT arm and the RL arm are enough of it.
    words += [f"~arms.{arm}" for arm in ("sft_worked", "sft_own") if f"  {arm}:" in recipe.read_text()]
    with LocalCluster(tmp_path) as cluster:
        cluster.add({VARIABLE: ""})
        cluster.add({VARIABLE: ""})
        env = {**cluster.env, "RAY_ADDRESS": cluster.address}
        run("sftrl_ext.cli", *words, folder=tmp_path, timeout=3600, env=env)
    check_whole(run_dir)
    [log] = run_dir.glob("stages/rl-*/log.txt")
    # Ray names the address of a process that is not on the driver's node.
    assert "ip=127.0.0.2" in log.read_text(errors="replace")
