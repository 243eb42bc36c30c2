"""Training starts a Ray of its own, whatever other Rays this machine has."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from data_prep.build import build_file
from data_prep.options import DataOptions
from sftrl_ext.experiments.cluster.local_ray import address_file, describe_ray, local_ray_env
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.verl_commands import ppo_command
from sftrl_ext.files import read_jsonl, write_text
from tests.training.tiny_start import write_tiny_llama


def trained(recipe, run_dir):
    return [stage for stage in make_plan(recipe, run_dir) if stage.kind in ("sft", "rl")]


@pytest.mark.parametrize("scale", ["smoke", "gpu", "node"])
def test_training_on_one_node_starts_its_own_ray(scale, monkeypatch, tmp_path):
    recipe = load_recipe("fig6_gp_l", scale)
    envs = []
    for value in (None, "", "local"):
        if value is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", value)
        stages = trained(recipe, tmp_path)
        assert {stage.env["RAY_ADDRESS"] for stage in stages} == {"local"}
        envs.append([(stage.command, stage.env) for stage in stages])
    # The key of a stage is made of both: it must not depend on the shell.
    assert envs[0] == envs[1] == envs[2]


def test_training_on_a_cluster_keeps_its_address(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert all("RAY_ADDRESS" not in stage.env for stage in trained(load_recipe("fig6_gp_l", "gpu"), tmp_path))
    monkeypatch.delenv("RAY_ADDRESS")
    several = trained(load_recipe("fig6_gp_l", "cluster"), tmp_path)
    assert several and all("RAY_ADDRESS" not in stage.env for stage in several)


@pytest.fixture
def short_tmp(monkeypatch):
    """A short temporary folder (sockets lie in it) where Ray looks for its address file."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_stale_address_file_and_a_set_address_are_described(short_tmp, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    [line, *_] = describe_ray()
    assert line == "RAY_ADDRESS: not set: a run on one node starts a Ray of its own"
    assert address_file().parent == short_tmp / "ray"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        write_text(address_file(), f"127.0.0.1:{port}\n")
        assert f"names 127.0.0.1:{port}, which does not answer (stale)" in describe_ray()[-1]
        listening.listen()
        assert f"names 127.0.0.1:{port}, which answers" in describe_ray()[-1]
    write_text(address_file(), "no address")
    assert "does not answer" in describe_ray()[-1]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert describe_ray()[0] == "RAY_ADDRESS: '10.0.0.1:6379': training joins the cluster at 10.0.0.1:6379"


def test_a_folder_too_long_for_sockets_is_described(short_tmp, monkeypatch):
    assert not any("too long" in line for line in describe_ray())
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", f"/scratch/{'x' * 40}")
    assert any(f"/scratch/{'x' * 40}/ray: too long for Ray's sockets" in line for line in describe_ray())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def stray_ray(short_tmp, monkeypatch):
    """A Ray cluster that somebody else started on this machine: its address file, and what kills it."""
    pytest.importorskip("verl")
    import psutil

    from sftrl_ext.experiments.subprocesses import end_tree

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["--head", "--port", free_port(), "--ray-client-server-port", free_port()]
    words += ["--num-cpus", 4, "--num-gpus", 1, "--object-store-memory", 100_000_000]
    words += ["--min-worker-port", 0, "--max-worker-port", 0, "--include-dashboard", "false"]
    words += ["--dashboard-port", free_port()]  # checked even without a dashboard
    program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
    with (short_tmp / "ray.log").open("w") as log:
        node = psutil.Popen(
            [*program, *map(str, words), "--disable-usage-stats", "--block"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill():
        tree = [*node.children(recursive=True), node]
        for process in tree:
            process.kill()
        psutil.wait_procs(tree, timeout=30)

    try:
        deadline = 900
        while not address_file().is_file() and node.poll() is None and deadline:
            deadline -= 1
            time.sleep(1)
        assert address_file().is_file(), (short_tmp / "ray.log").read_text()
        yield address_file(), kill
    finally:
        if node.is_running():
            end_tree(psutil.Process(node.pid))


def run_python(code, **variables):
    """A program on this machine, in the temporary folder that the other cluster uses."""
    env = {**os.environ, **variables, "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600)


JOIN = "import ray; ray.init(num_cpus=1, num_gpus=1, include_dashboard=False)"
"""As verl calls it on a CPU; 4 CPUs are the other cluster's."""

COUNT_CPUS = "; print('CPUs:', ray.cluster_resources()['CPU'])"

EVALUATE = """
import ray
from sftrl_ext.experiments.evaluation.workers import connected_ray
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
with connected_ray(load_recipe("fig6_gp_l", "smoke"), 1):
    print("CPUs:", ray.cluster_resources()["CPU"])
"""


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.nightly
def test_a_ray_of_ones_own_starts_beside_another_and_after_one_that_was_killed(stray_ray):
    file, kill = stray_ray
    address = file.read_text()
    for killed in (False, True):
        if killed:
            kill()
        assert file.read_text() == address  # of the one that was killed too
        assert "num_cpus and num_gpus must not be provided" in run_python(JOIN).stderr
        for code, variables in ((JOIN + COUNT_CPUS, local_ray_env()), (EVALUATE, {})):
            done = run_python(code, **variables)
            assert done.returncode == 0 and "CPUs: 1.0" in done.stdout, done.stdout + done.stderr[-3000:]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("killed", [False, True])
def test_a_step_of_ppo_beside_another_ray_and_after_one_that_was_killed(killed, stray_ray, tmp_path):
    file, kill = stray_ray
    if killed:
        kill()
    assert file.is_file()
    model = tmp_path / "model"
    write_tiny_llama(model)
    build_file(DataOptions("rl", tmp_path / "rl.parquet", template="compact", max_attempts=2, rows=8))
    words = ["budget.rl.updates=1", "budget.rl.rows=8", "budget.rl.episodes=8", "budget.rl.minibatches=1"]
    words += ["budget.rl.epochs=1", "budget.rl.max_turn_tokens=16", "budget.rl.max_response_length=200"]
    recipe = load_recipe("fig6_gp_l", "smoke", words)
    rows, checkpoints = tmp_path / "rl.parquet", tmp_path / "rl" / "checkpoints"
    command, env = ppo_command(recipe, recipe.budget.rl, model, rows, [rows], checkpoints, "rl", 0)
    env = {**os.environ, **env, "VERL_FILE_LOGGER_PATH": str(tmp_path / "m.jsonl")}
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        done = subprocess.run(command, env=env, stdout=file, stderr=subprocess.STDOUT, timeout=800)
    assert done.returncode == 0, log.read_text()[-4000:]
    [step] = read_jsonl(tmp_path / "m.jsonl")
    assert step["data"]["training/global_step"] == 1
    assert (checkpoints / "global_step_1" / "actor" / "huggingface").is_dir()
