"""A run from an init that was given: its tokens are D_init of the compute axes."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_json, write_text
from sftrl_ext.reports.analysis.curves import at_equal_compute, build_curves
from sftrl_ext.runs.compute import BUFFER_RATIO
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.run_folder import load_run
from sftrl_ext.runs.token_files import write_given_tokens

N, D_INIT = 1000, 5000


def make_run(root):
    layout = RunLayout(root)
    stages = [
        {"name": "model", "kind": "model", "status": "done"},
        {"name": "sft-s0", "kind": "sft", "arm": "sft", "seed": 0, "lr": 1e-4, "start": "model@0"},
        {"name": "rl-s0", "kind": "rl", "arm": "rl", "seed": 0, "lr": 1e-4, "start": "model@0"},
    ]
    write_json(layout.state, {"model": {"parameters": N, "critic_parameters": N}, "stages": stages})
    write_given_tokens(layout, "model", N, D_INIT)
    sft = {"step": 2, "trained_tokens": 100, "sequence_tokens": 100}
    rl = {"step": 1, "trained_tokens": 40, "sequence_tokens": 10, "generated_tokens": 4, "prefill_tokens": 6}
    zeros = dict.fromkeys(("generated_tokens", "prefill_tokens", "forward_tokens"), 0)
    critic = {"trained_critic_tokens": 0, "forward_critic_tokens": 0}
    write_text(layout.tokens("sft-s0"), json.dumps({**zeros, **critic, **sft}) + "\n")
    write_text(layout.tokens("rl-s0"), json.dumps({**zeros, **critic, **rl}) + "\n")
    points = (("model", "init", 0.0, 0, 3), ("sft-s0", "sft", 1e-4, 2, 5), ("rl-s0", "rl", 1e-4, 1, 6))
    names = ("stage", "arm", "lr", "step", "solved")
    every = {"seed": 0, "split": "id", "data_source": "gp_l/id", "episodes": 10}
    records = [{**every, **dict(zip(names, point, strict=True))} for point in points]
    write_text(layout.records, "".join(json.dumps(record) + "\n" for record in records))
    return load_run(root)


def test_the_tokens_of_a_given_init_are_counted(tmp_path):
    run = make_run(tmp_path)
    curves = build_curves(run)
    [start] = curves.start
    assert (start.arm, start.stage, start.step) == ("init", "model", 0)
    assert start.cost.on("counted") == start.cost.on("paper") == 6 * N * D_INIT
    costs = {curve.arm: curve.steps()[0][0].cost for curve in curves.arms}
    assert costs["sft"].on("counted") == 6 * N * (D_INIT + 100)
    assert costs["rl"].on("counted") == 6 * N * (D_INIT + 40) + 2 * N * 10
    # X_RL = 6 N (D_init + D_RL) + 2 N lambda D_RL
    buffer = BUFFER_RATIO * 40
    assert costs["rl"].on("paper") == pytest.approx(6 * N * (D_INIT + 40) + 2 * N * buffer)
    assert not any("D_init is taken as 0" in note for note in run.notes)
    assert at_equal_compute(curves, "counted").budget == 6 * N * (D_INIT + 40) + 2 * N * 10


def test_stages_that_start_from_each_other_are_refused(tmp_path):
    make_run(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    for stage, start in (("sft-s0", "rl-s0@1"), ("rl-s0", "sft-s0@2")):
        next(entry for entry in state["stages"] if entry["name"] == stage)["start"] = start
    write_json(tmp_path / "state.json", state)
    with pytest.raises(SftrlError, match="sft-s0 from rl-s0 from sft-s0: found stages that start from each"):
        build_curves(load_run(tmp_path))
