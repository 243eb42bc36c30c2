"""Evaluation over the nodes of a Ray cluster, one of which is lost on the way."""

import time

import pytest

pytest.importorskip("verl")

from sftrl_ext.experiments.recipe import ModelConfig
from tests.backends.two_nodes import LocalCluster
from tests.experiments.eval_runs import by_one_engine, by_workers, elsewhere, make_run, recipe_of, sets_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]


def wait_for_workers(cluster, count, patience=300):
    """Wait until the engines of all workers have started, so that each gets a unit."""
    end = time.monotonic() + patience
    while True:
        titles = [
            " ".join(child.cmdline())
            for node in cluster.nodes
            for child in node.children(recursive=True)
            if child.is_running()
        ]
        workers = [title for title in titles if title.startswith("ray::EvalWorker")]
        if len(workers) == count and not any("EvalWorker.start" in title for title in workers):
            return
        assert time.monotonic() < end, titles
        time.sleep(0.5)


def test_the_rest_of_a_cluster_does_the_work_of_a_lost_node(tmp_path, monkeypatch):
    from sftrl_ext.experiments.tiny_model import build_tiny_llama

    sets = sets_of("id", "rule_ood")
    config = ModelConfig(name="t", hidden_size=32, layers=1, heads=1, max_positions=1024)
    layout, state = make_run(tmp_path / "one", build_tiny_llama, sets, config)
    recipe = recipe_of("fig6_gp_l", sets)
    other = elsewhere(layout, tmp_path / "two")
    expected = by_one_engine(recipe, layout, state, sets)
    lines = []
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    with LocalCluster(tmp_path, cpus=1, gpus=0) as cluster:
        cluster.add()
        second = cluster.add()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

        def say(line):
            lines.append(line)
            if len(lines) == 1:
                wait_for_workers(cluster, 2)
            if "instances" in line and "127.0.0.2" in line and second.is_running():
                cluster.kill(second)

        assert by_workers(recipe, other, state, sets, say) == expected
    started = [line for line in lines if "instances" in line and "failed" not in line]
    assert len({"127.0.0.2" in line for line in started}) == 2, lines
    assert sum("failed at" in line for line in lines) == 1, lines
