"""Llama-3.2-Vision, the paper's backbone, from a folder to the report: words, images, and an init given."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from sftrl_ext.envs.general_points.cards import RANKS
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.envs.task import make_episode
from sftrl_ext.files import read_json, read_jsonl
from sftrl_ext.runs.layout import RunLayout

pytest.importorskip("verl")
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

HANDS = 6
SIZES = [
    f"budget.eval.hands={HANDS}",
    "budget.rl.max_prompt_length=96",
    "budget.rl.max_response_length=180",
    "budget.rl.rows=64",
    "budget.rl.micro_batch_size=8",
]


def sftrl(*words: str | Path) -> str:
    """Run the command line; what it wrote."""
    command = [sys.executable, "-m", "sftrl_ext.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def texts():
    """Prompts and feedback that the tokenizer is trained on."""
    rng = random.Random(0)
    for _ in range(200):
        facts = make_facts(rng.choices(RANKS, k=4), settings=PlaySettings(template="compact"))
        episode = make_episode(facts)
        yield episode.messages()[0]["content"]
        yield str(episode.submit('{"cards": ["A"], "number": [1], "formula": "1+2*3"}').reply)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder as the hub has it: the configuration does not name tied embeddings at its top."""
    from sftrl_ext.experiments.rehearsal.families import FAMILIES

    folder = tmp_path_factory.mktemp("model") / "mllama"
    FAMILIES["mllama"](folder, list(texts()))
    assert "tie_word_embeddings" not in read_json(folder / "config.json")
    return folder


@pytest.fixture(scope="module", params=["fig6_gp_l", "fig6_gp_vl"])
def run(request, model, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    sftrl("run", request.param, "--scale", "smoke", "--model", model, "--run-dir", run_dir, *SIZES)
    return RunLayout(run_dir)


def test_every_stage_is_done(run):
    stages = read_json(run.state)["stages"]
    assert [stage["kind"] for stage in stages] == ["data", "model", "sft", "sft", "rl", "eval", "report"]
    assert all(stage["status"] == "done" for stage in stages)
    assert (run.report / "report.html").stat().st_size > 500


def test_every_checkpoint_is_evaluated(run):
    records = list(read_jsonl(run.records))
    assert {record["arm"] for record in records} == {"init", "sft", "rl"}
    assert all(record["episodes"] == HANDS and record["errors"] == 0 for record in records)


def test_the_folder_and_a_checkpoint_are_evaluated_with_their_own_sampling(run, model):
    rows, words = run.eval_rows("id"), ("--max-turn-tokens", "8", "--device", "cpu", "--generation-config")
    for folder in (model, run.checkpoints("init")):
        assert "id" in sftrl("eval", folder, "--data", rows, *words)


def test_arms_start_from_a_given_init(run, tmp_path):
    """A second run from the init of the first, as from a published checkpoint."""
    given = ["model.role=init", "model.init_tokens=7000", "budget.rl.updates=1", "budget.sft.steps=2"]
    recipe = recipe_of(run)
    start = ("--model", run.checkpoints("init"))
    sftrl("run", recipe, "--scale", "smoke", *start, "--run-dir", tmp_path / "run", *SIZES, *given)
    layout = RunLayout(tmp_path / "run")
    kinds = [stage["kind"] for stage in read_json(layout.state)["stages"]]
    assert kinds == ["data", "model", "sft", "rl", "eval", "report"]
    init = [record for record in read_jsonl(layout.records) if record["arm"] == "init"]
    assert init and {(record["stage"], record["step"]) for record in init} == {("model", 0)}
    [line] = read_jsonl(layout.tokens("model"))
    assert (line["step"], line["trained_tokens"]) == (0, 7000)


def recipe_of(run):
    return str(read_json(run.state)["recipe"])
