"""Where `sftrl eval` finds a model: a folder, a checkpoint folder of verl, or the hub (here: its cache)."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("verl")

import torch
from huggingface_hub import constants

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation import engines
from sftrl_ext.experiments.evaluation.one_model import players
from sftrl_ext.experiments.evaluation.one_model.console_tables import Prices
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions
from sftrl_ext.experiments.evaluation.one_model.request import (
    EvalRequest,
    local_model,
    own_sampling,
    torch_device,
)
from sftrl_ext.experiments.start_models.model_source import is_hub_name
from sftrl_ext.hf_folder import load_model
from sftrl_ext.rollout.player import Generation
from sftrl_ext.rollout.tokens import load_chat_tokens
from sftrl_ext.runs.checkpoints import LATEST
from tests.backends.ascii_models import text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_model(tmp_path_factory.mktemp("model") / "tiny")


def test_a_folder_and_the_newest_checkpoint_of_verl(folder, tmp_path):
    with local_model(str(folder), "float32") as found:
        assert found == folder
    for step in (5, 10, 15):
        shutil.copytree(folder, tmp_path / f"global_step_{step}" / "actor" / "huggingface")
    (tmp_path / LATEST).write_text("10")  # the last one is not whole
    with local_model(str(tmp_path), "float32") as found:
        assert found == tmp_path / "global_step_10" / "actor" / "huggingface"
    with (
        pytest.raises(SftrlError, match=r"neither a Hugging Face folder"),
        local_model(str(tmp_path / "nothing"), "float32"),
    ):
        pass


def test_a_hub_name_is_fetched_as_a_run_fetches_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    with local_model("owner/tiny", "float32") as found:
        own, fetched = load_model(folder, torch.float32), load_model(found, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), fetched.parameters(), strict=True))
    assert not found.exists()
    with (
        pytest.raises(SftrlError, match=r"owner/other: no such folder here, and as a name of the hub: .*"),
        local_model("owner/other", "float32"),
    ):
        pass
    (tmp_path / "owner" / "tiny").mkdir(parents=True)
    assert is_hub_name("owner/other") and not is_hub_name("owner/tiny")


def write_generation_config(folder, **content):
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "sampling"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            {"temperature": 0.6, "top_p": 0.9, "top_k": 50},
        ),
        ({"do_sample": True, "top_k": 20}, {"temperature": 1.0, "top_k": 20}),
        ({"do_sample": True, "top_k": 0, "temperature": None}, {"temperature": 1.0}),
        ({"temperature": 0.6, "top_p": 0.9}, {"temperature": 0.0}),
    ],
)
def test_the_sampling_of_the_models_own_folder(tmp_path, content, sampling):
    (tmp_path / "config.json").write_text("{}")
    write_generation_config(tmp_path, **content)
    request = EvalRequest(str(tmp_path), [], generation_config=True)
    assert request.with_own_sampling().sampling == sampling
    assert EvalRequest(str(tmp_path), [], temperature=0.3, top_p=0.5).with_own_sampling().sampling == {
        "temperature": 0.3,
        "top_p": 0.5,
    }


def test_a_generation_config_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(SftrlError, match=r"generation_config.json: no such file"):
        own_sampling(tmp_path)
    with pytest.raises(SftrlError, match=r"top_p: expected a number; found 'all'"):
        own_sampling(write_generation_config(tmp_path, do_sample=True, top_p="all"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"temperature": -1}, "generation_config.json: temperature -1: expected 0"),
        ({"temperature": float("nan")}, "generation_config.json: temperature nan"),
        ({"top_p": 0}, "generation_config.json: top_p 0: expected above 0"),
        ({"top_k": -7}, "generation_config.json: top_k: expected a whole number of 0 or more"),
        ({"top_k": 2.5}, "found 2.5"),
    ],
)
def test_a_generation_config_out_of_range_is_refused(tmp_path, content, message):
    with pytest.raises(SftrlError, match=message):
        own_sampling(write_generation_config(tmp_path, do_sample=True, **content))


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_temperature_out_of_range_is_refused_before_anything_is_loaded(value, tmp_path, capsys):
    # Neither the model nor the data is there.
    words = ["eval", str(tmp_path / "model"), "--data", str(tmp_path / "rows.parquet")]
    assert main([*words, f"--temperature={value}"]) == 2
    assert f"--temperature {value}: expected 0 (greedy) or more" in " ".join(capsys.readouterr().err.split())


def test_devices(monkeypatch):
    assert torch_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device(None) == "cuda" and torch_device("cuda:1") == "cuda:1"
    with pytest.raises(SftrlError, match=r"cuda:2: torch sees 2 GPUs here"):
        torch_device("cuda:2")
    for name in ("gpu", "mps"):
        with pytest.raises(SftrlError, match=f"--device {name}: expected cpu, cuda or cuda:<n>"):
            torch_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device(None) == "cpu"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": 0}, "--batch-size 0: expected 1 or more"),
        ({"max_turn_tokens": 0}, "--max-turn-tokens 0: expected 1 or more"),
        ({"prices": Prices(prompt=-1.0)}, "--price-in -1: expected 0 or more"),
        ({"prices": Prices(completion=float("nan"))}, "--price-out nan: expected 0 or more"),
        ({"top_p": 0.0}, "--top-p 0: expected above 0"),
        ({"top_p": float("nan")}, "--top-p nan: expected above 0"),
        ({"device": "cpu", "engine": "vllm"}, "engine 'vllm' chooses its own"),
        (
            {"device": "cpu", "endpoint": EndpointOptions("http://localhost:1/v1")},
            "a served model chooses its own",
        ),
        (
            {"generation_config": True, "endpoint": EndpointOptions("http://localhost:1/v1")},
            "with --endpoint",
        ),
    ],
)
def test_options_without_effect_are_refused(keys, message):
    with pytest.raises(SftrlError, match=message):
        EvalRequest("m", [], **keys)


def test_a_fault_of_the_engine_ends_the_evaluation_and_is_not_stored(folder, tmp_path, monkeypatch, capsys):
    rows, kept = tmp_path / "rows.parquet", tmp_path / "kept.jsonl"
    assert main(["data", "rl", "--rows", "2", "--eval", "--template", "compact", "--out", str(rows)]) == 0

    class Engine:
        name = "hf"

        async def generate(self, prompt_ids, sampling_params, images=()):
            raise RuntimeError("out of memory")

        def chat_tokens(self):
            return load_chat_tokens(folder)

    monkeypatch.setattr(players, "open_engine", lambda *args, **options: Engine())
    assert main(["eval", str(folder), "--data", str(rows), "--episodes", str(kept)]) == 2
    assert "could not be played: RuntimeError: out of memory" in " ".join(capsys.readouterr().err.split())
    assert len(kept.read_text().splitlines()) == 1  # the settings


def test_the_command_line_reaches_engine_and_sampling(folder, tmp_path, monkeypatch, capsys):
    rows, opened, played = tmp_path / "rows.parquet", {}, []
    assert main(["data", "rl", "--rows", "2", "--eval", "--template", "compact", "--out", str(rows)]) == 0

    class Engine:
        name = "hf"

        async def generate(self, prompt_ids, sampling_params, images=()):
            played.append(sampling_params)
            return Generation([self.chat_tokens().tokenizer.eos_token_id])

        def chat_tokens(self):
            return load_chat_tokens(folder)

    def open_engine(name, folder, **options):
        opened.update(options, name=name)
        return Engine()

    monkeypatch.setattr(players, "open_engine", open_engine)
    words = ["--device", "cpu", "--batch-size", "3", "--max-turn-tokens", "7"]
    command = ["eval", str(folder), "--data", str(rows), *words]
    assert main([*command, "--top-p", "0.8"]) == 0
    assert (opened["device"], opened["rows"]) == ("cpu", 3)
    assert {(params["temperature"], params["top_p"], params["max_tokens"]) for params in played} == {
        (0.2, 0.8, 7)
    }
    played.clear()
    own = shutil.copytree(folder, tmp_path / "own")
    write_generation_config(own, do_sample=True, temperature=0.6, top_p=0.9)
    out = tmp_path / "records.jsonl"
    command[1] = str(own)
    assert main([*command, "--generation-config", "--out", str(out)]) == 0
    assert {(params["temperature"], params["top_p"], params["top_k"]) for params in played} == {
        (0.6, 0.9, 50)
    }
    assert json.loads(out.read_text())["temperature"] == 0.6
    assert main([*command, "--generation-config", "--top-p", "0.8"]) == 2
    assert "either, not both" in " ".join(capsys.readouterr().err.split())


def test_wrong_options_are_one_line_before_anything_is_loaded(tmp_path, capsys):
    for words, message in (
        (["--out", str(tmp_path)], f"--out {tmp_path}: found no file that can be written"),
        (["--out", str(tmp_path / "none" / "a.jsonl")], "found no file that can be written"),
    ):
        assert main(["eval", str(tmp_path / "model"), "--data", str(tmp_path / "none.parquet"), *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["nope", "Tensor", "int8"])
def test_a_type_that_weights_cannot_have_is_named(tmp_path, dtype):
    with pytest.raises(SftrlError, match=f"unknown dtype '{dtype}'.* Known: bfloat16, float16, float32"):
        engines.open_engine("hf", tmp_path, dtype=dtype, rows=1)
