"""Bounds of one try of a request: servers that never come to an end."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import pytest

pytest.importorskip("openai")

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.one_model import bounded_client
from sftrl_ext.experiments.evaluation.one_model.endpoint import Endpoint, EndpointOptions, Unanswered
from tests.experiments.evaluation.one_model.faulty_server import faulty_server

COMPLETION = json.dumps(
    {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": None}
).encode()


def complete(url, **options):
    """One answer, or the error of the endpoint; 10 seconds are those of the test."""

    async def request():
        async with Endpoint(EndpointOptions(url, **{"retries": 0, **options}), "m") as endpoint:
            messages = [{"role": "user", "content": "hi"}]
            return await asyncio.wait_for(
                endpoint.complete(messages, temperature=0.0, max_tokens=9, seed=1), 10
            )

    return asyncio.run(request())


def drip_body(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


def drip_head(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def redirect_to_itself(handler):
    time.sleep(0.1)
    handler.send_response(307)
    handler.send_header("Location", handler.path)
    handler.end_headers()


@pytest.mark.parametrize("answer", [drip_body, drip_head, redirect_to_itself])
def test_a_try_has_a_limit_of_time_however_slowly_bytes_come(answer):
    with faulty_server(answer) as url, pytest.raises(Unanswered, match=r"no answer within 0.3 seconds"):
        complete(url, timeout_s=0.3)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def endless_error(handler):
    handler.send_response(500)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def sends(body, coding, status=200):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Encoding", coding)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


BOMB = gzip.compress(b" " * (5 << 20))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (endless, "more than 1,048,576 bytes"),
        (endless_error, "more than 1,048,576 bytes"),
        (sends(BOMB, "gzip"), "more than 1,048,576 bytes"),
        (sends(BOMB, "gzip", 500), "more than 1,048,576 bytes"),
        (sends(gzip.compress(BOMB), "gzip, gzip"), "content coding 'gzip, gzip'"),
        (sends(b"not gzip", "gzip"), "failed 1 times"),
    ],
)
def test_a_body_has_a_limit_of_size(answer, message, monkeypatch):
    monkeypatch.setattr(bounded_client, "MAX_BODY", 1 << 20)
    with faulty_server(answer) as url, pytest.raises(Unanswered, match=message):
        complete(url, timeout_s=60.0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"junk", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"[]", "not a list of models"),
        (b"{}", "not a list of models"),
        (b'{"data": "abc"}', "not a list of models"),
        (b'{"data": [null]}', "not a list of models"),
        (b'{"data": [{"id": 5}]}', "not a list of models"),
        (b'{"data": []}', r"serves 0 models \(none\)"),
        (b'{"data": [{"id": "a"}, {"id": "b"}]}', r"serves 2 models \(a, b\)"),
    ],
)
def test_the_list_of_models_is_checked(body, message):
    with faulty_server(sends(body, "identity")) as url, pytest.raises(SftrlError, match=message):
        asyncio.run(served_model(url))


def test_the_one_served_model():
    with faulty_server(sends(b'{"data": [{"id": "m"}]}', "identity")) as url:
        assert asyncio.run(served_model(url)) == "m"


async def served_model(url):
    async with Endpoint(EndpointOptions(url, retries=0), None) as endpoint:
        return await endpoint.served_model()


def test_a_compressed_answer_and_a_redirect_are_read():
    packed = sends(gzip.compress(COMPLETION), "gzip")

    def answer(handler):
        if handler.path.startswith("/v1/"):
            handler.send_response(307)
            handler.send_header("Location", "/elsewhere")
            handler.end_headers()
        else:
            packed(handler)

    with faulty_server(answer) as url:
        assert complete(url).text == "hello"


def test_a_broken_connection_is_tried_again():
    tries = []

    def answer(handler):
        tries.append(1)
        if len(tries) > 1:
            sends(COMPLETION, "identity")(handler)

    with faulty_server(answer) as url:
        with pytest.raises(Unanswered, match="failed 1 times"):
            complete(url)
        tries.clear()
        assert complete(url, retries=1).text == "hello"
