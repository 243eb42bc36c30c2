"""Tasks of inspect-ai: its own evaluation plays our episodes as `sftrl eval` does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.envs import TASKS, make_episode
from sftrl_ext.envs.general_points import solve
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions
from sftrl_ext.experiments.evaluation.one_model.evaluate_one import evaluate_model
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest
from sftrl_ext.experiments.evaluation.targets import load_eval_set
from sftrl_ext.files import read_jsonl
from tests.serving import canned, served

pytestmark = pytest.mark.bridges

ROWS = 4


@pytest.fixture
def run(tmp_path):
    """Runs tasks with inspect-ai; returns its one log."""
    from inspect_ai import eval as inspect_eval

    def play(task="sftrl/general_points", **options):
        options = {"log_dir": str(tmp_path / "logs"), "display": "none", **options}
        (log,) = inspect_eval(task, **options)
        assert log.status == "success", log.error
        return log

    return play


def rows_file(tmp_path, *options):
    path = tmp_path / "rows.parquet"
    words = ["data", "rl", "--eval", "--split", "rule_ood", "--rows", ROWS, "--max-attempts", 3, *options]
    assert main([str(word) for word in [*words, "--out", path]]) == 0
    return path


def scores(log, name):
    return [sample.scores["episode_score"].value[name] for sample in log.samples]


def test_every_task_is_registered():
    from inspect_ai._util.registry import registry_lookup

    assert all(registry_lookup("task", f"sftrl/{name}") for name in TASKS)


def test_an_episode_is_played_with_feedback_until_it_is_solved(run):
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    rows = {"split": "rule_ood", "rows": 2, "seed": 7, "max_attempts": 2}
    dialogues = []

    def reply(messages, tools, tool_choice, config):
        dialogues.append([message.text for message in messages])
        output = ModelOutput.from_content("mockllm/model", '{"number": [7, 7, 7, 7], "formula": "7"}')
        output.usage = ModelUsage()  # which would be counted with a tokenizer from the network
        return output

    log = run(task_args=rows, model=get_model("mockllm/model", custom_outputs=reply))
    assert scores(log, "solved") == [0.0, 0.0] and scores(log, "attempts") == [2.0, 2.0]
    returns = []
    for sample in log.samples:
        episode = make_episode(json.loads(sample.metadata["facts"]))
        assert [message["content"] for message in episode.messages()] in dialogues
        answer = sample.messages[-1].text
        returns.append(sum(episode.submit(answer).reward for _ in range(2)))
    assert scores(log, "return") == returns
    assert {metric for score in log.results.scores for metric in score.metrics} == {"mean", "stderr"}


def compare(run, monkeypatch, seen, path, tmp_path, model, **sampling):
    """Play rows with `sftrl eval` and with inspect-ai; the requests of both must be the same."""
    settings = {"temperature": 0.0, "seed": 5, "max_turn_tokens": 32, **sampling}
    asked = EvalRequest(
        model, [path], endpoint=EndpointOptions(seen.url), episodes=tmp_path / "e", **settings
    )
    (record,) = evaluate_model(asked, Console(file=io.StringIO()))
    ours = [seen.requests.pop() for _ in range(len(seen.requests))]
    monkeypatch.setenv("SFTRL_BASE_URL", seen.url)
    monkeypatch.setenv("SFTRL_API_KEY", "none")
    log = run(
        task_args={"data": str(path), "response_seed": settings["seed"]},
        model=f"openai-api/sftrl/{model}",
        temperature=settings["temperature"],
        max_tokens=settings["max_turn_tokens"],
    )
    theirs = [seen.requests.pop() for _ in range(len(seen.requests))]
    assert sorted(map(_comparable, ours)) == sorted(map(_comparable, theirs))
    lines = sorted(list(read_jsonl(tmp_path / "e"))[1:], key=lambda line: line["index"])
    assert [float(line["solved"]) for line in lines] == scores(log, "solved")
    assert [float(len(line["responses"])) for line in lines] == scores(log, "attempts")
    return record, log


def _comparable(body):
    messages = [[m["role"], _parts(m["content"])] for m in body["messages"]]
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    return json.dumps([messages, body["seed"], body["temperature"], limit])


def _parts(content):
    if isinstance(content, str):
        return [["text", content]]
    return [[p["type"], p["text"] if p["type"] == "text" else p["image_url"]["url"]] for p in content]


def test_scores_agree_with_sftrl_eval_episode_by_episode(run, monkeypatch, tmp_path):
    path = rows_file(tmp_path)
    right = {}
    for index, facts in enumerate(load_eval_set(path).facts):
        episode = make_episode(facts)
        formula = solve(episode.numbers, episode.target)[0]
        right[episode.messages()[-1]["content"]] = (index, json.dumps({"formula": f"{formula}=24"}))

    def reply(body):
        """Solve row i at attempt i."""
        dialogue = [m["content"] for m in body["messages"] if m["role"] != "system"]
        index, answer = right[dialogue[0]]
        return answer if len(dialogue) // 2 == index else "{}"

    with served(canned(reply)) as seen:
        record, log = compare(run, monkeypatch, seen, path, tmp_path, "m")
    assert record["solved"] == 3 and scores(log, "solved") == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["text", "image"])
def test_episodes_agree_on_a_served_model(run, monkeypatch, tmp_path, kind):
    from sftrl_ext.backends.hf.local_engine import LocalEngine
    from sftrl_ext.backends.openai_server import make_app
    from tests.backends.ascii_models import image_model, text_model

    images = ["--modality", "image", "--image-size", "112x56"] if kind == "image" else []
    path = rows_file(tmp_path, "--template", "compact", *images)
    engine = LocalEngine((image_model if kind == "image" else text_model)(tmp_path / "model"))
    with served(make_app(engine, "tiny")) as seen:
        compare(run, monkeypatch, seen, path, tmp_path, "tiny", temperature=1.0)
    engine.close()


@pytest.mark.nightly
def test_the_command_line_of_inspect_knows_the_tasks(tmp_path):
    command = [sys.executable, "-m", "inspect_ai", "eval", "sftrl/general_points", "-T", "split=rule_ood"]
    command += ["-T", "rows=2", "--model", "openai-api/sftrl/m", "--display", "plain", "--log-format", "json"]
    with served(canned(lambda body: "{}")) as seen:
        variables = {"SFTRL_BASE_URL": seen.url, "SFTRL_API_KEY": "none"}
        env = {**os.environ, **variables, "INSPECT_LOG_DIR": str(tmp_path / "logs")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    read = json.loads(log.read_text())
    assert read["eval"]["dataset"]["name"] == "gp_l/rule_ood" and read["results"]["total_samples"] == 2
