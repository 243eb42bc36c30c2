"""A task outside the package, the one of docs/extend.md: an episode, a record with its rows, and a recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.build import build_file
from data_prep.options import DataOptions
from data_prep.validate import validate_file
from sftrl_ext.envs import TASKS
from sftrl_ext.envs.task import make_episode, task_of_source
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, load_recipe, to_yaml
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.files import read_json, read_jsonl, write_text
from sftrl_ext.plugins import VARIABLE
from sftrl_ext.runs.layout import RunLayout
from tests.plugin_state import forgotten_plugins
from tests.test_docs import ROOT, blocks

FILES = ("doubling.py", "doubling_task.py", "my_doubling.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The three files of the page, known to this process as long as the module is tested."""
    folder = tmp_path_factory.mktemp("outside")
    texts = {mark.removeprefix("file: "): text for mark, _, text in blocks(ROOT / "docs" / "extend.md")}
    for name in FILES:
        (folder / name).write_text(texts[name])
    with forgotten_plugins(TASKS):
        yield folder


@pytest.fixture(scope="module")
def recipe(folder):
    return load_recipe(folder / "my_doubling.yaml", "smoke")


def test_the_recipe_brings_its_task(recipe, folder, tmp_path):
    assert TASKS["doubling"].data_sources == {"text": "doubling", "image": "doubling"}
    assert task_of_source("doubling/large") is TASKS["doubling"]
    assert make_episode({"task": "doubling", "number": 4}).submit("8").terminated
    assert {stage.env[VARIABLE] for stage in make_plan(recipe, tmp_path)} == {
        str(folder / "doubling_task.py")
    }
    write_text(tmp_path / "recipe.yaml", to_yaml(recipe))
    assert from_yaml(tmp_path / "recipe.yaml").task == recipe.task


def test_another_process_finds_it_by_the_variable(folder):
    code = "from sftrl_ext.envs import make_episode; make_episode({'task': 'doubling', 'number': 4})"
    env = {**os.environ, VARIABLE: str(folder / "doubling_task.py")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=120)


def test_the_data_stage_builds_and_describes_its_rows(recipe, tmp_path):
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    reports = {path.stem: validate_file(path) for path in sorted(layout.data.glob("*.parquet"))}
    assert set(reports) == {"base", "init", "sft-s0", "rl-s0", "eval-id", "eval-large"}
    assert reports["base"].sft_rows == reports["base"].rows == recipe.budget.base.rows
    assert reports["rl-s0"].sft_rows == 0 and reports["eval-large"].splits == {"large": 16}
    card = (layout.data / "dataset_card.md").read_text()
    assert "| eval-large | 16 | RL / evaluation | large | doubling |" in card


def test_sftrl_data_builds_it_too(recipe, tmp_path):
    options = DataOptions(
        "suboptimal", tmp_path / "a.parquet", task="doubling", rows=50, settings="largest=9"
    )
    assert build_file(options) == 50
    report = validate_file(options.out)
    assert report.rows == report.turns == 50, "one trained answer in each dialogue"
    first, again = options.out.read_bytes(), build_file(options)
    assert again == 50 and options.out.read_bytes() == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "doublin"}, "Did you mean 'doubling'"),
        ({"split": "larg"}, "Did you mean 'large'"),
        ({"suits": "red"}, "--suits is for task 'general_points'"),
        ({"kind": "reasoned"}, "task 'doubling' has no worked answers; expected `worked_answer`"),
        ({"kind": "given", "source": Path("a.csv")}, "task 'doubling' reads no list"),
    ],
)
def test_wrong_options_are_named(recipe, tmp_path, change, words):
    plain = {"kind": "rl", "task": "doubling", "out": tmp_path / "a.parquet", "settings": "largest=9"}
    with pytest.raises(SftrlError, match=words):
        build_file(DataOptions(**(plain | change)))


def test_a_plugin_that_is_not_there_is_named(folder):
    with pytest.raises(SftrlError, match=r"plug-in .*none\.py: no such file"):
        load_recipe(folder / "my_doubling.yaml", "smoke", plugins=["none.py"])


@pytest.mark.e2e
@pytest.mark.slow
def test_it_runs_from_data_to_report(folder, tmp_path):
    """Data, pre-training, SFT, PPO on verl, evaluation and report of a task the package does not name."""
    pytest.importorskip("verl")
    layout = RunLayout(tmp_path / "run")
    command = [
        sys.executable,
        "-m",
        "sftrl_ext.cli",
        "run",
        str(folder / "my_doubling.yaml"),
        "--scale",
        "smoke",
    ]
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [*command, "--run-dir", str(layout.root)], env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert all(stage["status"] == "done" for stage in read_json(layout.state)["stages"])
    records = list(read_jsonl(layout.records))
    assert {(record["arm"], record["split"]) for record in records} == {
        (arm, split) for arm in ("base", "init", "sft", "rl") for split in ("id", "large")
    }
    assert all(record["episodes"] == 16 and record["errors"] == 0 for record in records)
    step = next(iter(read_jsonl(layout.metrics("rl-lr0.0002-s0"))))["data"]
    assert step["episode/episode_error"] == 0 and step["episode/attempts"] >= 1
    verdict = read_json(layout.report / "summary.json")["verdict"]
    assert verdict["split"] == "large" and verdict["rl_minus_sft"] is not None
    assert verdict["headline"] in (layout.report / "report.md").read_text()
