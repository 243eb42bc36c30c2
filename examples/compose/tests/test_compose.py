"""Functions, splits, rows of every kind, grades, and the recipe."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.build import build_file
from data_prep.options import DataOptions
from data_prep.validate import validate_file
from sftrl_ext.envs import make_episode
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.plugins import load_plugins

ROOT = Path(__file__).parents[1]
load_plugins([str(ROOT / "compose_task" / "task.py")])

from compose_task.episode import FUNCTIONS, SYMBOLS, applications, tables  # noqa: E402
from compose_task.rows import CHAINS, OTHER  # noqa: E402

FACTS = {"task": "compose", "functions": "AB", "symbol": "c"}


def test_the_functions_are_distinct_permutations_of_their_seed():
    functions = tables(0)
    assert all(sorted(table.values()) == list(SYMBOLS) for table in functions.values())
    assert len({tuple(table.values()) for table in functions.values()}) == len(FUNCTIONS)
    assert tables(1) != functions


def test_the_last_function_of_the_prompt_comes_first():
    functions = tables(0)
    (first, second) = applications(FACTS)
    assert first == ("B", "c", functions["B"]["c"])
    assert second == ("A", first[2], functions["A"][first[2]])


def test_no_training_shows_a_pair_of_the_test():
    assert len(OTHER) == 16 and not set(OTHER) & set(CHAINS["id"]) and len(CHAINS["id"]) == 48
    for place in (0, 1):
        assert all(sum(pair[place] == name for pair in OTHER) == 2 for name in FUNCTIONS)


def test_the_last_word_is_the_answer():
    right = applications(FACTS)[-1][2]
    wrong = next(symbol for symbol in SYMBOLS if symbol != right)
    for response, outcome, reward in (
        (right, "correct", 1.0),
        (f"B c {wrong} , A {wrong} {right}\n", "correct", 1.0),
        (f"{right} {wrong}", "wrong", 0.0),
        ("", "no_symbol", -1.0),
    ):
        step = make_episode(FACTS).submit(response)
        assert (step.attempt.verdict.outcome, step.reward) == (outcome, reward)
        assert step.done and step.reply is None


@pytest.mark.parametrize("split", list(CHAINS))
@pytest.mark.parametrize("kind", ["rl", "sft", "reasoned"])
def test_rows_build(kind, split, tmp_path):
    out = tmp_path / "rows.parquet"
    assert build_file(DataOptions(kind, out, task="compose", split=split, rows=40, max_attempts=1)) == 40
    report = validate_file(out)
    assert report.rows == 40 and report.splits == {split: 40}


def test_working_shows_every_application(tmp_path):
    out = tmp_path / "rows.parquet"
    build_file(DataOptions("reasoned", out, task="compose", split="depth_3", rows=5, max_attempts=1))
    for row in pq.read_table(out).to_pylist():
        assert len(row["messages"][-1]["content"].split(" , ")) == 3


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_the_recipe_composes(scale, tmp_path):
    recipe = load_recipe(ROOT / "recipe.yaml", scale)
    assert recipe.task.pretrain_splits == ["single"]
    trained = {stage.arm for stage in make_plan(recipe, tmp_path) if stage.kind in ("sft", "rl")}
    assert trained == {"base", "init", "sft", "sft_worked", "sft_own", "rl"}
