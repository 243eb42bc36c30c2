"""`sftrl serve` and `sftrl eval --endpoint` together play what the local engine plays by tokens."""

from __future__ import annotations

import io
import json
import math
import signal
import socket
import subprocess
import sys
from collections import Counter

import jsonschema
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


def test_log_probabilities_are_the_models_own(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    ask = {"model": kind, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
    create = client.chat.completions.create
    greedy = create(**ask, temperature=0, logprobs=True, top_logprobs=20).choices[0]
    tokens = greedy.logprobs.content
    assert "".join(token.token for token in tokens) == greedy.message.content
    for token in tokens:
        top = token.top_logprobs
        assert len(top) == 20 and (top[0].token, top[0].logprob) == (token.token, token.logprob)
        assert 0.5 < sum(math.exp(other.logprob) for other in top) <= 1.0001
        assert [other.logprob for other in top] == sorted((other.logprob for other in top), reverse=True)
    # At a temperature they are those of the distribution that was sampled from; top-k leaves few tokens.
    few = create(**ask, temperature=2, seed=3, logprobs=True, top_logprobs=5, extra_body={"top_k": 2})
    for token in few.choices[0].logprobs.content:
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) == pytest.approx(1, abs=1e-5)
        assert len(token.top_logprobs) == 2


def test_a_penalty_keeps_tokens_from_coming_again(kind, server):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    ask = {"model": kind, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "seed": 4}

    def most_of_one(**penalty):
        text = client.chat.completions.create(**ask, **penalty).choices[0].message.content
        return max(Counter(text).values()) / len(text)

    assert most_of_one(frequency_penalty=2) < most_of_one() < most_of_one(frequency_penalty=-2)
    assert most_of_one(presence_penalty=0) == most_of_one() != most_of_one(presence_penalty=2)


def test_an_answer_is_held_to_a_schema(kind, server):
    pytest.importorskip("llguidance")
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    ask = {"model": kind, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 300, "seed": 1}
    hand = {
        "type": "object",
        "properties": {
            "cards": {"type": "array", "items": {"enum": ["K", "5"]}, "minItems": 2, "maxItems": 2},
            "right": {"type": "boolean"},
        },
        "required": ["cards", "right"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "hand", "schema": hand, "strict": True}}
    request = {**ask, "response_format": form, "n": 4}
    choices = client.chat.completions.create(**request).choices
    for choice in choices:
        jsonschema.validate(json.loads(choice.message.content), hand)
        assert choice.finish_reason == "stop"
    with client.chat.completions.create(**{**request, "n": 1}, stream=True) as chunks:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == choices[0].message.content
    some = client.chat.completions.create(**ask, response_format={"type": "json_object"}).choices[0]
    assert some.message.content.startswith("{")
    plain = client.chat.completions.create(**ask, response_format={"type": "text"}).choices[0]
    assert plain.message.content == client.chat.completions.create(**ask).choices[0].message.content


def schema(content):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": content}}


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
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"top_logprobs": 2}, "expected logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "expected json_schema"),
        ({"response_format": schema({"type": "nothing"})}, "no grammar can be made of the schema"),
        ({"response_format": schema({"pattern": "(" * 9, "type": "string"})}, "no grammar can be made"),
        ({"response_format": schema({"enum": ["a" * 200_000]})}, "expected at most 100000"),
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
