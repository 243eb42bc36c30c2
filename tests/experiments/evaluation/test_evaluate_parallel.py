"""Evaluation by workers of a real Ray: the records of one engine, with a worker killed on the way too."""

import json
import os
import re

import pytest

pytest.importorskip("verl")

from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.runs.records import Divergence
from sftrl_ext.runs.run_folder import load_run
from tests.experiments.evaluation.eval_runs import (
    Killer,
    by_one_engine,
    by_workers,
    elsewhere,
    make_run,
    recipe_of,
    sets_of,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory):
    """One Ray for all tests of the file."""
    import ray

    os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
    ray.init(
        address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=100_000_000,
        log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()


def test_two_workers_give_the_records_of_one_engine_though_one_is_killed(tmp_path, local_ray):
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama

    sets = sets_of("id", "rule_ood")
    config = ModelConfig(name="t", hidden_size=32, layers=1, heads=1, max_positions=1024)
    layout, state = make_run(tmp_path / "one", build_tiny_llama, sets, config)
    recipe = recipe_of("fig6_gp_l", sets)
    other = elsewhere(layout, tmp_path / "two")
    expected = by_one_engine(recipe, layout, state, sets)
    assert len(expected[0]) == 8 and len(expected[1]) == 8 * 3
    assert sum("forward" in record.get("divergence", {}) for record in expected[0]) == 4
    # The checkpoints differ, so a record of the wrong one would be seen.
    assert (
        len({json.dumps(record["outcomes"]) + str(record["generated_tokens"]) for record in expected[0]}) > 4
    )

    killer = Killer(at=3)
    assert by_workers(recipe, other, state, sets, killer) == expected
    read = load_run(other.root).records  # by the report
    assert sum(isinstance(record.divergence, Divergence) for record in read) == 4
    failures = [line for line in killer.lines if "failed at" in line]
    assert len(failures) == 1
    failure = re.fullmatch(
        r"worker \d \(pid .*\) failed at (\w+@\d on \w+, instances 0 to 5): .+", failures[0]
    )
    # What it was at was done by another one.
    assert len({line.partition(" (")[0] for line in killer.lines if line.endswith(f": {failure[1]}")}) == 2

    # Killed after some records, the last one torn, some of them without their divergence: goes on.
    lines = other.records.read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    for record in records[2:]:
        record.pop("divergence", None)
    text = "".join(json.dumps(record) + "\n" for record in records[:5])
    other.records.write_text(text + lines[6][:40])
    again = []
    assert by_workers(recipe, other, state, sets, again.append) == expected
    assert sum("instances" in line for line in again) == 3
    assert sum("divergence of" in line for line in again) == 3
    # Nothing is left to do: no worker starts.
    done = []
    assert by_workers(recipe, other, state, sets, done.append) == expected and done == []


@pytest.mark.nightly
def test_slices_of_a_split_are_one_record_and_pictures_are_drawn_again(tmp_path, local_ray, monkeypatch):
    from sftrl_ext.experiments.evaluation import units
    from sftrl_ext.experiments.start_models.tiny_vision import build_tiny_qwen_vl

    sets = sets_of("id", suit="S", modality="image", look={"width": 112, "height": 56})
    vision = VisionConfig(hidden_size=32, layers=1, heads=2)
    config = ModelConfig(name="t", hidden_size=32, layers=1, heads=2, vision=vision)
    layout, state = make_run(tmp_path / "one", build_tiny_qwen_vl, sets, config)
    recipe = recipe_of("fig7_gp_vl", sets)
    other = elsewhere(layout, tmp_path / "two")
    expected = by_one_engine(recipe, layout, state, sets)
    assert all("recognized_first" in record and "forward" in record["divergence"] for record in expected[0])
    monkeypatch.setattr(units, "UNITS_PER_WORKER", 4)
    monkeypatch.setattr(units, "SMALLEST_SLICE", 2)
    lines = []
    assert by_workers(recipe, other, state, sets, lines.append) == expected
    assert sum("instances 3 to 5" in line for line in lines) == 4
