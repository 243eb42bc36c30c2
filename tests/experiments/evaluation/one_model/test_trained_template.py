"""A model is asked in the words of its training: its run, or the server of it, names the template."""

from __future__ import annotations

import io
import shutil

import pytest

pytest.importorskip("verl")
pytest.importorskip("openai")
pytest.importorskip("uvicorn")

from rich.console import Console

from sftrl_ext.backends.hf.local_engine import LocalEngine
from sftrl_ext.backends.openai_server import make_app
from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions
from sftrl_ext.experiments.evaluation.one_model.evaluate_one import evaluate_model
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest
from sftrl_ext.experiments.evaluation.one_model.trained_template import template_of_folder
from tests.backends.ascii_models import text_model
from tests.serving import served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoint of a run whose template is ``compact``."""
    run = tmp_path_factory.mktemp("runs") / "mine"
    folder = run / "stages" / "sft-s0" / "checkpoints" / "global_step_3" / "huggingface"
    text_model(folder)
    (run / "recipe.yaml").write_text("name: mine\ntask:\n  template: compact\n")
    (run / "state.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for template in ("compact", "default"):
        words = ["data", "rl", "--eval", "--rows", "2", "--max-attempts", "1", "--template", template]
        assert main([*words, "--out", str(folder / f"{template}.parquet")]) == 0
    return folder


def evaluate(file, **more):
    request = EvalRequest(files=[file], max_turn_tokens=4, **more)
    (record,) = evaluate_model(request, Console(file=io.StringIO()))
    return record["episodes"]


def test_a_checkpoint_of_a_run_is_asked_in_its_words(trained, rows, tmp_path):
    assert template_of_folder(trained).name == "compact"
    assert evaluate(rows / "compact.parquet", model=str(trained)) == 2
    words = r"template 'default'; the model was trained with 'compact' \(.*mine\).*--template compact"
    with pytest.raises(SftrlError, match=words):
        evaluate(rows / "default.parquet", model=str(trained))
    assert evaluate(rows / "default.parquet", model=str(trained), any_template=True) == 2
    # A folder that is part of no run was trained with nobody knows what.
    shutil.copytree(trained, tmp_path / "alone")
    assert evaluate(rows / "default.parquet", model=str(tmp_path / "alone")) == 2


@pytest.mark.parametrize("named", [None, "mine"])
def test_a_served_checkpoint_is_asked_in_its_words(trained, rows, tmp_path, named):
    engine = LocalEngine(trained)
    with served(make_app(engine, "mine", template="compact")) as server:
        settings = {"model": named, "endpoint": EndpointOptions(server.url), "episodes": tmp_path / "e.jsonl"}
        with pytest.raises(SftrlError, match="the model was trained with 'compact'"):
            evaluate(rows / "default.parquet", **settings)
        assert not (tmp_path / "e.jsonl").exists()
        assert evaluate(rows / "compact.parquet", **settings) == 2
    engine.close()


def test_the_command_line_says_so_in_one_line(trained, rows, capsys):
    command = ["eval", str(trained), "--data", str(rows / "default.parquet"), "--max-turn-tokens", "4"]
    assert main(command) == 2
    assert "the model was trained with 'compact'" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--any-template"]) == 0
