import json
import os
import sys
import time

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster import on_cluster
from sftrl_ext.experiments.cluster.check_nodes import Needs, Node, wait_for_nodes
from sftrl_ext.experiments.cluster.on_cluster import JOB_CONFIG, driver_env, run_and_watch, run_variables

HEAD = Node("aaaaaaaaaa", "10.0.0.1", 8, 96)
WORKER = Node("bbbbbbbbbb", "10.0.0.2", 8, 96)


def test_waits_until_enough_nodes_offer_enough():
    looks = iter([[HEAD], [HEAD, Node("c", "10.0.0.3", 0, 4)], [HEAD, WORKER]])
    assert wait_for_nodes(Needs(2, 8, 80), 60, lambda: next(looks), pause=0) == [HEAD, WORKER]


@pytest.mark.parametrize("needs", [Needs(3, 8, 80), Needs(2, 9, 80), Needs(2, 8, 97)])
def test_too_little_is_named_with_what_there_is(needs):
    with pytest.raises(SftrlError) as raised:
        wait_for_nodes(needs, 0, lambda: [HEAD, WORKER])
    text = str(raised.value)
    assert f"{needs.nodes} nodes with {needs.gpus} GPUs and {needs.cpus} CPUs" in text
    assert "10.0.0.1 (8 GPUs, 96 CPUs" in text and "10.0.0.2" in text


def test_the_run_s_variables_travel_and_secrets_and_the_machine_s_stay():
    environ = {
        "VERL_PLATFORM": "cpu",
        "SFTRL_FREEZE": "vision",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": "secret",
        "NCCL_SOCKET_IFNAME": "eth0",
        "HOME": "/home/me",
    }
    assert run_variables(environ) == {
        "VERL_PLATFORM": "cpu",
        "SFTRL_FREEZE": "vision",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
    }


def test_a_ray_job_s_own_runtime_environment_is_kept():
    outer = {
        "runtime_env": {"working_dir": "gcs://x.zip", "env_vars": {"A": "1", "VERL_X": "old"}},
        "metadata": {},
    }
    env = driver_env({"VERL_X": "new", "PATH": "/bin", JOB_CONFIG: json.dumps(outer)}, "10.0.0.1:6379")
    inner = json.loads(env[JOB_CONFIG])
    assert inner["runtime_env"] == {"working_dir": "gcs://x.zip", "env_vars": {"A": "1", "VERL_X": "new"}}
    assert env["RAY_ADDRESS"] == "10.0.0.1:6379" and env["PATH"] == "/bin"


def run(code, look, **options):
    options = {"ask": lambda nodes: lambda: True, "pause": 0.05, **options}
    return run_and_watch([sys.executable, "-c", code], os.environ, [HEAD, WORKER], look=look, **options)


def test_a_command_ends_with_its_own_status_while_all_nodes_live():
    assert run("", lambda: [HEAD, WORKER]) == 0
    assert run("raise SystemExit(7)", lambda: [HEAD, WORKER]) == 7


def test_a_command_that_hangs_after_a_node_is_lost_is_ended():
    looks = iter([[HEAD, WORKER]])
    started = time.monotonic()
    with pytest.raises(SftrlError, match=r"lost 1 of 2 nodes.*10\.0\.0\.2.*sftrl resume"):
        run("import time; time.sleep(600)", lambda: next(looks, [HEAD]), grace=0.2)
    assert time.monotonic() - started < 60


def test_a_command_that_fails_because_of_a_lost_node_names_the_node():
    # Ray notices the death some looks after the command has failed; until then the node does not answer.
    ended, looks = [], iter([[HEAD, WORKER]] * 3)
    look = lambda: next(looks, [HEAD]) if ended else [HEAD, WORKER]  # noqa: E731

    def ask(nodes):
        ended.append(nodes)
        return lambda: False

    with pytest.raises(SftrlError, match=r"10\.0\.0\.2"):
        run("raise SystemExit(1)", look, ask=ask)
    assert ended == [[HEAD, WORKER]]


def test_a_command_that_fails_while_a_node_is_slow_to_answer_keeps_its_status():
    assert run("raise SystemExit(3)", lambda: [HEAD, WORKER], ask=lambda n: lambda: False, notice=0.2) == 3


def test_a_command_that_ends_well_although_a_node_left_is_done():
    assert run("import time; time.sleep(0.5)", lambda: [HEAD], grace=60) == 0


def test_nodes_are_asked_for_flash_attn_only_if_the_run_needs_it(monkeypatch):
    asked = []
    monkeypatch.setattr(on_cluster, "_main", lambda args: asked.append((args.flash_attn, args.command)) or 0)
    words = ["--nodes", "2", "--gpus", "8", "--cpus", "80", "--shared", "/runs"]
    assert on_cluster.main([*words, "--flash-attn", "--", "train", "x=1"]) == 0
    assert on_cluster.main([*words, "--", "train", "x=1"]) == 0
    assert asked == [(True, ["train", "x=1"]), (False, ["train", "x=1"])]


@pytest.mark.parametrize(
    ("given", "used"), [(None, "auto"), ("local", "auto"), ("10.0.0.1:6379", "10.0.0.1:6379")]
)
def test_a_run_on_several_nodes_joins_a_cluster_whatever_the_shell_says(given, used, monkeypatch):
    ray = pytest.importorskip("ray")
    for name in ("RAY_ADDRESS", on_cluster.OVERRIDE):  # both are set by the command; put back at the end
        monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv("RAY_ADDRESS")
    joined = []

    def init(address, **unused):
        joined.append((address, os.environ["RAY_ADDRESS"]))
        raise ConnectionError("none there")

    monkeypatch.setattr(ray, "init", init)
    words = ["--nodes", "2", "--gpus", "1", "--cpus", "1", "--shared", "/runs", "--", "train"]
    assert on_cluster.main(words) == 2
    assert joined == [(used, used)]
