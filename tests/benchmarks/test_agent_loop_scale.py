"""The agent loop's worker and verl's put the same rows, whatever the order in which their episodes end."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from benchmarks.agent_loop_scale import Bench, measure, misses
from sftrl_ext.rollout.loop_manager import VerifierLoopWorker


@pytest.mark.parametrize("name", ["gp_l", "virl_l", "gp_vl"])
def test_both_workers_put_the_same_rows(name, tmp_path):
    bench = Bench(name, 12, 3, tmp_path)
    ours = measure(bench, VerifierLoopWorker, 0.01, lines=0)
    verls = measure(bench, VerifierLoopWorker.__mro__[1], 0.001, lines=0)
    assert ours["digest"] == verls["digest"] and ours["rows"] >= 12
    assert ours["turns"] == verls["turns"] > 12


def test_a_missed_bound_is_named():
    result = {"turns_per_cpu_s": 1999, "block": {"longest_ms": 51.0}}
    assert [text.split()[0] for text in misses("gp_l", result)] == ["gp_l:", "gp_l:"]
    assert len(misses("gp_vl", result)) == 1
