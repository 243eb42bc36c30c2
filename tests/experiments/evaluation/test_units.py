"""Which worker gets which unit, how splits are cut, and how many engines a scale has."""

from dataclasses import dataclass, replace

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.units import UnitQueue, slices, worker_count
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe


@dataclass(frozen=True)
class Plain:
    weights: str
    name: str
    size: int = 10


def units(text):
    """``"a1 a2 b1"``: units of the weights a and b."""
    return [Plain(word[0], word) for word in text.split()]


def test_a_worker_keeps_its_weights_and_workers_spread_before_they_share():
    queue = UnitQueue(units("a1 a2 a3 b1 b2 c1"))
    assert queue.take(0).name == "a1"
    assert queue.take(1).name == "b1"
    assert queue.take(0).name == "a2" and queue.take(0).name == "a3"
    assert queue.take(0).name == "c1"  # not b2: worker 1 holds b
    assert queue.take(0).name == "b2"  # nothing else is left
    assert queue.take(1) is None and len(queue) == 0


def test_each_weights_are_loaded_once_where_there_are_enough_of_them():
    queue = UnitQueue(units(" ".join(f"{letter}{n}" for letter in "abcdefgh" for n in range(3))))
    loads, holds = 0, {}
    for turn in range(24):
        unit = queue.take(turn % 4)
        loads += holds.get(turn % 4) != unit.weights
        holds[turn % 4] = unit.weights
    assert loads == 8


def test_shared_weights_are_those_with_most_left():
    queue = UnitQueue([Plain("a", "a1"), Plain("a", "a2", 5), Plain("b", "b1"), Plain("b", "b2", 50)])
    assert queue.take(0).name == "a1" and queue.take(1).name == "b1"
    assert queue.take(2).name == "b2"


def test_a_unit_waits_once_more_after_a_failure_and_first():
    queue = UnitQueue(units("a1 a2 b1"))
    unit = queue.take(0)
    queue.drop_worker(0)
    assert queue.put_back(unit) and queue.take(1) == unit
    queue.drop_worker(1)
    assert not queue.put_back(unit)
    assert [queue.take(2).name, queue.take(2).name] == ["a2", "b1"]


def test_splits_are_cut_only_when_workers_would_wait():
    assert slices(234, 36, 8) == [range(234)]
    assert slices(234, 2, 1) == [range(234)]
    parts = slices(234, 4, 8)
    assert len(parts) == 4 and [i for part in parts for i in part] == list(range(234))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(slices(40, 1, 16)) == 2  # not smaller than a slice may be
    assert slices(5, 1, 16) == [range(5)]


@pytest.mark.parametrize(
    ("scale", "overrides", "workers"),
    [
        ("smoke", [], 0),
        ("laptop", [], 0),
        ("laptop", ["scale.eval_workers=1"], 0),
        ("laptop", ["scale.eval_workers=2"], 2),
        ("smoke", ["scale.engine=vllm"], 1),
        ("gpu", [], 1),
        ("node", [], 8),
        ("node", ["scale.tensor_parallel=2"], 4),
        ("node", ["scale.tensor_parallel=3"], 2),
        ("node", ["scale.engine=hf", "scale.tensor_parallel=2"], 8),
        ("cluster", [], 16),
        ("cluster", ["scale.eval_workers=3"], 3),
    ],
)
def test_engines_of_a_scale(scale, overrides, workers):
    assert worker_count(load_recipe("fig6_gp_l", scale, overrides).scale) == workers


def test_wrong_numbers_are_refused_with_their_key():
    scale = load_recipe("fig6_gp_l", "node").scale
    with pytest.raises(SftrlError, match="scale.eval_workers=0"):
        worker_count(replace(scale, eval_workers=0))
    with pytest.raises(SftrlError, match="scale.tensor_parallel=16.*on one node"):
        worker_count(replace(scale, tensor_parallel=16))


def test_the_plan_names_the_engines(tmp_path):
    def title(scale, *overrides):
        plan = make_plan(load_recipe("fig6_gp_l", scale, list(overrides)), tmp_path)
        return next(stage.title for stage in plan if stage.kind == "eval")

    assert title("cluster").endswith("(16 vllm engines of 1 GPU)")
    assert title("node", "scale.tensor_parallel=2").endswith("(4 vllm engines of 2 GPUs)")
    assert title("laptop").endswith("(1 hf engine)")
