"""A run over two Ray nodes on one machine: the numbers of one node, a node lost on the way, and a resume."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from sftrl_ext.experiments.subprocesses import end_tree
from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.checkpoints import latest_step
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")

from tests.backends.two_nodes import LocalCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

UPDATES, RL = 4, "rl-lr0.0002-s0"
RECIPE = [
    "fig6_gp_l",
    "--scale",
    "smoke",
    "~arms.sft",
    "task.eval_splits=[id,rule_ood]",
    "budget.eval.hands=4",
]
RECIPE += ["model.hidden_size=64", "model.layers=2", "budget.dialogues=null"]
RECIPE += ["budget.base.rows=256", "budget.base.steps=4", "budget.init.rows=64", "budget.init.steps=2"]
RECIPE += ["budget.rl.rows=32", "budget.rl.episodes=8", f"budget.rl.updates={UPDATES}"]
RECIPE += ["budget.rl.save_every=1", "budget.rl.validate_every=1", "trackers=[tensorboard]"]
RECIPE += ['verl_ppo=["sftrl.check_every=2"]']  # steps 1 and 3 measure, 2 and 4 do not
PATIENCE = 1800
"""Seconds for what takes one or two minutes on free cores."""
ENDS_WITHIN = 240
"""Seconds from a node's death to the end of the run: until Ray notices, the grace, ending processes."""


def sftrl(verb, *words, env):
    command = [sys.executable, "-m", "sftrl_ext.cli", verb, *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=2 * PATIENCE)


def steps(layout, stage):
    return {line["step"]: line["data"] for line in read_jsonl(layout.metrics(stage))}


def wait_until(there, process, patience=PATIENCE):
    end = time.monotonic() + patience
    while not there():
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What was said and what came out, of a run that loses a node and of one on a single node."""
    folder = tmp_path_factory.mktemp("two_nodes")
    two, one = RunLayout(folder / "two"), RunLayout(folder / "one")
    found = {"two": two, "one": one}
    with LocalCluster(folder) as cluster:
        cluster.add()
        env = {**cluster.env, "RAY_ADDRESS": cluster.address}

        # A node whose verl does not load our plug-in.
        unable = cluster.add({"VERL_USE_EXTERNAL_PLUGINS": "none"})
        check = [sys.executable, "-m", "sftrl_ext.experiments.cluster.on_cluster"]
        check += ["--nodes", "2", "--gpus", "1", "--cpus", "10", "--shared", str(folder)]
        check += ["--", "touch", str(folder / "ran")]
        found["refused"] = subprocess.run(check, env=env, capture_output=True, text=True, timeout=PATIENCE)
        found["ran"] = (folder / "ran").exists()
        end_tree(psutil.Process(unable.pid))

        worker = cluster.add()
        words = [*RECIPE, "scale.nnodes=2", "--run-dir", str(two.root)]
        with (folder / "run.txt").open("w") as output:
            run = subprocess.Popen(
                [sys.executable, "-m", "sftrl_ext.cli", "run", *words],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            wait_until(lambda: latest_step(two.checkpoints(RL)) >= 2, run, 3 * PATIENCE)
            cluster.kill(worker)
            killed = time.monotonic()
            found["code"] = run.wait(timeout=PATIENCE)
            found["seconds"] = time.monotonic() - killed
        found["said"] = (folder / "run.txt").read_text()
        found["failed"] = {s["name"]: s["status"] for s in read_json(two.state)["stages"]}
        found["saved"] = latest_step(two.checkpoints(RL))

        cluster.add()
        found["resumed"] = sftrl("resume", two.root, env=env)
    words = [*RECIPE, "scale.n_gpus_per_node=2", "--run-dir", one.root]
    del env["RAY_ADDRESS"]
    found["alone"] = sftrl("run", *words, env=env)
    assert found["alone"].returncode == 0, found["alone"].stdout[-4000:]
    print(json.dumps({"seconds until the end": found["seconds"], "saved": found["saved"]}))  # noqa: T201
    for layout in (two, one):
        walls = {s["name"]: s["wall_s"] for s in read_json(layout.state)["stages"]}
        print(layout.root.name, walls)  # noqa: T201
    return found


def test_a_node_without_the_plug_in_is_named_before_anything_runs(story):
    refused = story["refused"]
    assert refused.returncode == 2 and not story["ran"]
    assert "1 of 2 nodes cannot take part" in refused.stderr
    assert "127.0.0.2" in refused.stderr
    assert "verl does not know the trainer sftrl_turn" in refused.stderr


def test_a_lost_node_ends_the_run_soon_and_is_named(story):
    assert story["code"] == 2 and story["seconds"] < ENDS_WITHIN
    assert "lost 1 of 2 nodes" in story["said"] and "127.0.0.3" in story["said"]
    assert "sftrl resume" in story["said"]
    assert story["failed"][RL] == "failed" and story["failed"]["init"] == "done"
    assert 2 <= story["saved"] < UPDATES


def test_the_run_goes_on_from_its_last_checkpoint(story):
    resumed = story["resumed"]
    assert resumed.returncode == 0, resumed.stdout[-4000:]
    state = read_json(story["two"].state)
    assert all(stage["status"] == "done" for stage in state["stages"])
    launches = {stage["name"]: stage["launches"] for stage in state["stages"]}
    assert launches[RL] == 2 and launches["init"] == 1
    again = read_jsonl(story["two"].stage(RL) / "metrics-2.jsonl")
    assert min(line["step"] for line in again) > story["saved"] - 1
    assert (story["two"].report / "report.html").is_file()


@pytest.mark.parametrize("stage", ["base", "init"])
def test_sft_is_the_same_as_on_one_node(story, stage):
    two, one = steps(story["two"], stage), steps(story["one"], stage)
    assert two.keys() == one.keys() and len(one) >= 2
    for step in one:
        for key in ("train/loss", "train/grad_norm", "train/lr", "train/global_tokens"):
            assert two[step][key] == pytest.approx(one[step][key], rel=1e-4), (step, key)


def test_rl_is_the_same_as_on_one_node_although_it_was_cut_in_two(story):
    two, one = steps(story["two"], RL), steps(story["one"], RL)
    # verl saves a step before it logs it, so the step at which the run was killed may be saved only.
    assert set(two) | {story["saved"]} == set(one) == set(range(1, UPDATES + 1))
    same = ["critic/score/mean", "critic/vf_loss", "actor/pg_loss", "actor/grad_norm", "policy/kl_start_k3"]
    same += ["episode/turns", "episode/generated_tokens", "response_length/mean", "tokens/trained"]
    assert {step for step in one if "policy/kl_start_k3" in one[step]} == {1, 3}
    for step in two:
        assert two[step].keys() >= {key for key in same if key in one[step]}
        for key in two[step].keys() & set(same):
            assert two[step][key] == pytest.approx(one[step][key], rel=2e-3, abs=1e-6), (step, key)
        assert two[step].get("training/rollout_probs_diff_max", 0.0) < 1e-4


def test_both_evaluate_alike(story):
    def records(layout):
        return {(r["stage"], r["step"], r["split"]): r for r in read_jsonl(layout.records)}

    two, one = records(story["two"]), records(story["one"])
    assert two.keys() == one.keys() and len(one) == 2 * (2 + UPDATES)
    for key in one:
        assert two[key]["solved"] == one[key]["solved"], key
        assert two[key]["generated_tokens"] == pytest.approx(one[key]["generated_tokens"], rel=0.05), key


def test_the_tracker_has_curves_of_every_split_from_both_launches(story):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    seen = events.EventAccumulator(str(story["two"].stage(RL) / "tensorboard"))
    seen.Reload()
    names = seen.Tags()["scalars"]
    logged = set(steps(story["two"], RL))
    assert {1, UPDATES} <= logged
    for split in ("id", "rule_ood"):
        (name,) = [n for n in names if n.startswith(f"val-core/gp_l/{split}/") and "/acc/" in n]
        assert {event.step for event in seen.Scalars(name)} == logged
    assert {event.step for event in seen.Scalars("critic/score/mean")} == logged
