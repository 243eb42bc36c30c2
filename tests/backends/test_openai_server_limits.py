"""Requests that `sftrl serve` refuses, its end, and that clients do not hold it up."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("verl")
pytest.importorskip("uvicorn")

from PIL import Image

from sftrl_ext.backends import chat_request, openai_server
from sftrl_ext.backends.chat_request import MAX_CHARACTERS
from sftrl_ext.backends.openai_server import MAX_BODY, make_app
from sftrl_ext.cli import main
from sftrl_ext.rollout.player import Generation
from tests.backends.ascii_models import text_model
from tests.backends.asgi import send


class Builder:
    """Encodes a text as one token a character."""

    def __init__(self, multimodal=False):
        self.multimodal = multimodal
        self.threads = set()

    def supports_multimodal(self):
        return self.multimodal

    def build_initial_tokens(self, messages, images=None):
        self.threads.add(threading.current_thread())
        return [3] * sum(len(message["content"]) for message in messages)


class Chat:
    stops = frozenset({1})

    def __init__(self, multimodal=False):
        self.builder = Builder(multimodal)

    def decode(self, ids):
        return "x" * len(ids)


class Engine:
    """Answers at once, or never."""

    def __init__(self, endless=False, multimodal=False):
        self.chat = Chat(multimodal)
        self.endless = endless
        self.started = asyncio.Event()
        self.cancelled = False

    def chat_tokens(self):
        return self.chat

    async def generate(self, prompt_ids, sampling_params, images=(), on_tokens=None):
        self.started.set()
        if self.endless:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return Generation([2, 1])


def ask(content="hello", **more):
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def reply_to(body, engine=None, key=None, **how):
    return asyncio.run(send(make_app(engine or Engine(), "m", key), body, **how))


def test_a_long_body_is_refused_before_it_is_read():
    declared = reply_to(b"{", headers={"content-length": str(MAX_BODY + 1)})
    assert (declared.status, declared.chunks_read) == (413, 0)
    assert f"more than {MAX_BODY >> 20} MB" in declared.error and declared.headers["connection"] == "close"
    # Without a length, as many chunks are read as the limit takes.
    chunked = reply_to([bytes(1 << 20)] * 100)
    assert (chunked.status, chunked.chunks_read) == (413, (MAX_BODY >> 20) + 1)


def test_a_long_text_is_refused_before_it_is_encoded():
    engine = Engine()
    reply = reply_to(ask("a" * (MAX_CHARACTERS + 1)), engine)
    assert reply.status == 400 and f"expected at most {MAX_CHARACTERS}" in reply.error
    parts = [{"type": "text", "text": "a" * (MAX_CHARACTERS // 2 + 1)}] * 2
    assert reply_to(ask(parts), engine).status == 400
    assert not engine.chat.builder.threads


def test_a_dialogue_is_encoded_beside_the_event_loop():
    engine = Engine()
    assert reply_to(ask(), engine).status == 200
    assert engine.chat.builder.threads and threading.main_thread() not in engine.chat.builder.threads


def test_pictures_that_decode_to_too_much_are_refused(monkeypatch):
    monkeypatch.setattr(chat_request, "MAX_PIXELS", 15_000)

    def ask_to_see(size, kind="PNG"):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, kind)
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    seeing = Engine(multimodal=True)
    assert reply_to(ask([ask_to_see((100, 100))]), seeing).status == 200
    many = reply_to(ask([ask_to_see((100, 100))] * 2), seeing)
    assert many.status == 400 and "20000 pixels" in many.error
    assert reply_to(ask([ask_to_see((10, 10), "PPM")]), seeing).status == 400


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b"nothing", b'{"model": "\\ud800"}', b"\xff"])
def test_a_body_that_is_no_request_is_refused(body):
    assert reply_to(body).status == 400


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_no_tokens_is_no_number_of_tokens(name):
    reply = reply_to(ask(**{name: 0}))
    assert reply.status == 400 and name in reply.error


@pytest.mark.parametrize("name", ["top_k", "seed"])
@pytest.mark.parametrize("value", [10**30, -(10**30)])
def test_a_number_that_no_tensor_holds_is_refused(name, value):
    reply = reply_to(ask(**{name: value}))
    assert reply.status == 400 and name in reply.error


def test_only_clients_with_the_key_are_served():
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "se\xe9cret"}):
        reply = reply_to(ask(), key="secret", headers=headers)
        assert (reply.status, reply.chunks_read) == (401, 0)
        assert "secret" not in reply.error
        assert reply_to(b"", key="secret", headers=headers, path="/v1/models").status == 401
    right = {"authorization": "Bearer secret"}
    assert reply_to(ask(), key="secret", headers=right).status == 200
    assert reply_to(b"", key="secret", headers=right, path="/v1/models").json["data"][0]["id"] == "m"


def test_a_client_that_disconnects_ends_its_generation():
    async def scenario():
        engine, leave = Engine(endless=True), asyncio.Event()
        request = asyncio.create_task(send(make_app(engine, "m"), ask(), leave=leave))
        await engine.started.wait()
        assert not engine.cancelled
        leave.set()
        await asyncio.wait_for(request, 10)
        return engine

    assert asyncio.run(scenario()).cancelled


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "::"], "--insecure"),
        (["--host", "example.org"], "--insecure"),
        (["--api-key-variable", "SFTRL_NO_SUCH_KEY"], "found no such environment variable"),
        (["--host", "203.0.113.1", "--insecure"], "cannot serve there"),
        (["--port", "-1"], "cannot serve there"),
    ],
)
def test_the_verb_refuses_before_it_loads_the_model(words, expected, tmp_path, capsys):
    assert main(["serve", str(tmp_path / "none"), *words]) == 2
    assert expected in capsys.readouterr().err


def test_the_key_comes_from_the_variable(monkeypatch):
    monkeypatch.setenv("SFTRL_TEST_KEY", "secret")
    assert openai_server.key_of("SFTRL_TEST_KEY", "0.0.0.0", insecure=False) == "secret"
    assert openai_server.key_of(None, "0.0.0.0", insecure=True) is None
    assert openai_server.key_of(None, "::1", insecure=False) is None


@pytest.mark.slow
def test_an_idle_connection_outlasts_its_client():
    """httpx and openai drop a connection after five idle seconds; until then they send on it."""
    bound = openai_server.bind("127.0.0.1", 0)
    # A thread that is left to the end of the process: only a signal stops the server.
    threading.Thread(target=openai_server.serve, args=(Engine(), "mine", bound), daemon=True).start()
    _connect(*bound.getsockname()).close()
    connection = http.client.HTTPConnection(*bound.getsockname(), timeout=60)
    for pause_s in (0, 6):
        time.sleep(pause_s)
        connection.request("GET", "/health")
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (200, b"")
    connection.close()


@pytest.mark.slow
def test_sigterm_ends_a_server_that_generates(tmp_path):
    folder = text_model(tmp_path / "model")
    # No answer ends by itself while the test runs.
    slow = (
        "import sys, time; from sftrl_ext.backends.hf.engine import Engine; step = Engine.step\n"
        "Engine.step = lambda self: (time.sleep(3600), step(self))[1]\n"
        "from sftrl_ext.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["serve", str(folder), "--name", "mine", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        address = process.stdout.readline().split("//")[1].split("/")[0]
        host, port = address.split(":")
        body = b'{"model": "mine", "max_tokens": 2000, "messages": [{"role": "user", "content": "hello"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        waits, gone = (_connect(host, int(port)) for _ in range(2))
        for connection in (waits, gone):
            connection.sendall(head.encode() + body)
        gone.close()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        # Five seconds on a machine with free cores.
        stopped = waits.recv(100)
        assert process.wait(timeout=30) == 0
        assert b"503" in stopped
        waits.close()
    finally:
        process.kill()


def _connect(host, port):
    for _ in range(600):
        try:
            return socket.create_connection((host, port), timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("the server never listened")
