"""`sftrl serve` and `sftrl eval --endpoint` together play what the local engine plays by tokens."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("verl")
pytest.importorskip("openai")
pytest.importorskip("uvicorn")

import openai
from PIL import Image
from rich.console import Console

from sftrl_ext.backends.hf.local_engine import LocalEngine
from sftrl_ext.backends.openai_server import make_app
from sftrl_ext.cli import main
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions, data_url
from sftrl_ext.experiments.evaluation.one_model.evaluate_one import evaluate_model
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest
from sftrl_ext.files import read_jsonl
from tests.backends.ascii_models import image_model, text_model
from tests.serving import served

pytestmark = pytest.mark.slow

ROWS = 6


@pytest.fixture(scope="module", params=["text", "image"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / kind
    return text_model(path) if kind == "text" else image_model(path)


@pytest.fixture(scope="module")
def server(folder, kind):
    engine = LocalEngine(folder)
    with served(make_app(engine, kind)) as seen:
        yield seen
    engine.close()


@pytest.fixture(scope="module")
def rows(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "id.parquet"
    words = ["data", "rl", "--eval", "--rows", ROWS, "--max-attempts", 3, "--template", "compact"]
    words += ["--modality", "image", "--image-size", "112x56"] if kind == "image" else []
    assert main([str(word) for word in [*words, "--out", path]]) == 0
    return path


def evaluate(path, rows, seed=5, **how):
    asked = EvalRequest(files=[rows], temperature=1.0, max_turn_tokens=64, seed=seed, episodes=path, **how)
    (record,) = evaluate_model(asked, Console(file=io.StringIO()))
    lines = sorted(list(read_jsonl(path))[1:], key=lambda line: line["index"])
    return record, lines


def test_an_endpoint_plays_the_same_episodes_as_the_engine(kind, folder, server, rows, tmp_path):
    local, by_tokens = evaluate(tmp_path / "local.jsonl", rows, model=str(folder))
    # A local evaluation goes on as one of an endpoint does.
    whole = (tmp_path / "local.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "local.jsonl").write_text("".join(whole[:-2])[:-5])
    assert evaluate(tmp_path / "local.jsonl", rows, model=str(folder)) == (local, by_tokens)
    endpoint = EndpointOptions(server.url, concurrency=2)
    remote, by_messages = evaluate(tmp_path / "remote.jsonl", rows, model=None, endpoint=endpoint)
    assert remote["model"] == kind
    assert server.most_in_flight == 2
    texts = {text for line in by_tokens for text in line["responses"]}
    assert len(texts) > 2 * ROWS
    for own, sent in zip(by_tokens, by_messages, strict=True):
        assert sent["messages"] == own["messages"]
        assert sent["responses"] == own["responses"]
        assert sent["attempts"] == own["attempts"]
        assert sent["prefill_tokens"] == own["prefill_tokens"]
        assert sent["generated_tokens"] == own["generated_tokens"]
        assert sent["cut_turns"] == own["cut_turns"]
    cut = sum(line["cut_turns"] for line in by_tokens)
    assert 0 < cut < sum(len(line["responses"]) for line in by_tokens)
    for key in ("episodes", "solved", "outcomes", "attempts_mean", "recognized_first"):
        assert local.get(key) == remote.get(key)
    # Another seed says other things.
    _, other = evaluate(tmp_path / "other.jsonl", rows, model=None, endpoint=endpoint, seed=6)
    assert texts.isdisjoint({text for line in other for text in line["responses"]})


def test_a_picture_is_looked_at_or_refused(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)

    def say(colour):
        picture = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (112, 56), colour))}}
        content = [picture, {"type": "text", "text": "say"}]
        answer = client.chat.completions.create(
            model=kind, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=12
        )
        return answer.choices[0].message.content

    if kind == "text":
        with pytest.raises(openai.BadRequestError, match="sees no images"):
            say("red")
    else:
        assert say("red") == say("red") != say("green")


def test_what_the_server_answers(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == [kind]
    ask = {"model": kind, "messages": [{"role": "user", "content": "hello"}]}
    create = client.chat.completions.create
    cut = create(**ask, max_tokens=2, temperature=1, seed=3)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 2)
    long = create(**ask, max_completion_tokens=400, temperature=1, seed=3)
    assert long.choices[0].finish_reason == "stop"
    assert long.choices[0].message.content.startswith(cut.choices[0].message.content)
    assert long.usage.total_tokens == long.usage.prompt_tokens + long.usage.completion_tokens
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    split = create(model=kind, messages=[{"role": "user", "content": parts}], max_tokens=2, seed=3)
    assert split.usage.prompt_tokens == cut.usage.prompt_tokens


def test_a_stream_a_stop_sequence_and_several_answers(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    ask = {"model": kind, "messages": [{"role": "user", "content": "hello"}], "temperature": 1}
    create = client.chat.completions.create
    whole = create(**ask, max_tokens=60, seed=3).choices[0].message.content
    chunks = list(create(**ask, max_tokens=60, seed=3, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert len(chunks) > len(whole) / 4
    stop = whole[5:7]
    stopped = create(**ask, max_tokens=60, seed=3, stop=stop).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole[: whole.index(stop)], "stop")
    both = [choice.message.content for choice in create(**ask, max_tokens=60, seed=2, n=2).choices]
    assert both[1] == whole != both[0]


def test_what_the_server_refuses(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    user = {"role": "user", "content": "hello"}
    ask = {"model": kind, "messages": [user]}
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        create(model="other", messages=[user])
    remote = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
    torn = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for wrong, words in (
        ({"n": 65}, "n: "),
        ({"stop": 3}, "stop"),
        ({"tools": []}, "tools"),
        ({"extra_body": {"best_of": 3}}, "best_of"),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 3000}]}, "context length is 2048"),
        ({"messages": [{"role": "user", "content": [remote]}]}, "nothing is fetched"),
        ({"messages": [{"role": "user", "content": [torn]}]}, "image_url: picture: cannot be read"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            create(**{**ask, **wrong})


def test_the_verb_serves_until_interrupted(tmp_path):
    folder = text_model(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--name", "mine", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sftrl_ext.cli", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=100)
        ask = {"model": "mine", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
        assert client.chat.completions.create(**ask).usage.completion_tokens > 0
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"mine at http://127.0.0.1:{port}/v1" in said
