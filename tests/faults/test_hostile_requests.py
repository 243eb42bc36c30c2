"""Damaged requests to `sftrl serve` get an answer or a refusal in one line; no other error, and none is lost.

``SFTRL_FUZZ_REQUESTS`` is their number: `make nightly` takes 10,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter

import pytest

pytest.importorskip("verl")
pytest.importorskip("fastapi")

from PIL import Image

from sftrl_ext.backends.hf.local_engine import LocalEngine
from sftrl_ext.backends.openai_server import make_app
from sftrl_ext.experiments.evaluation.one_model.endpoint import data_url
from tests.backends.ascii_models import image_model
from tests.backends.asgi import send
from tests.faults.damage import damaged_bytes, damaged_value

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SFTRL_FUZZ_REQUESTS", "300"))
SEED = int(os.environ.get("SFTRL_FUZZ_SEED", "0"))
AT_ONCE = 16
REFUSALS = {400, 401, 404, 405, 413}

PICTURE = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (28, 28)))}}
REQUESTS = (
    {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3},
    {
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
        "max_completion_tokens": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "seed": 3,
        "n": 2,
        "stop": ["x", "yz"],
        "stream": False,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logprobs": True,
        "top_logprobs": 3,
        "user": "me",
    },
    {
        "messages": [{"role": "user", "content": [PICTURE, {"type": "text", "text": "which?"}]}],
        "max_tokens": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": "q",
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "x",
                "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "[0-9]{2}"}}},
            },
        },
    },
)


class ShortAnswers(LocalEngine):
    """The engine, with answers of four tokens; a limit beyond any answer is left for it to refuse."""

    async def generate(self, prompt_ids, sampling_params, *args, **options):
        if sampling_params["max_tokens"] < 10_000:
            sampling_params = {**sampling_params, "max_tokens": min(4, sampling_params["max_tokens"])}
        return await super().generate(prompt_ids, sampling_params, *args, **options)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = ShortAnswers(image_model(tmp_path_factory.mktemp("model") / "m"))
    yield engine
    engine.close()


def hostile_request(source):
    """(body, headers, path) of a request, damaged in one of them."""
    body = json.dumps({"model": "m", **source.choice(REQUESTS)}).encode()
    headers, path = {"authorization": "Bearer key"}, "/v1/chat/completions"
    kind = source.randrange(10)
    if kind == 0:
        body = damaged_bytes(source, body)
    elif kind == 1:
        headers = {
            source.choice(("authorization", "content-type", "x")): source.choice(
                ("", "\xff", "Bearer", "a" * 999)
            )
        }
    elif kind == 2:
        headers["content-length"] = source.choice(("-1", "nan", "", "9" * 30, "0", "\xb2"))
    elif kind == 3:
        path = source.choice(
            ("/", "/v1", "/v1/models/../../etc", "/v1/%00", "/health", "/v1/models", "/docs")
        )
    else:
        body = json.dumps(damaged_value(source, json.loads(body))).encode()
    return body, headers, path


async def play(app, counts, faults):
    gate = asyncio.Semaphore(AT_ONCE)
    source = random.Random(SEED)

    async def request(number, body, headers, path):
        async with gate:
            try:
                reply = await asyncio.wait_for(send(app, body, path, headers), 120)
            except Exception as error:  # noqa: BLE001 - the application must have answered
                faults.append(f"{number}: {type(error).__name__}: {str(error)[:200]} to {body[:300]!r}")
                return
        counts[reply.status] += 1
        if reply.status == 200:
            return
        message = json.loads(reply.body)["error"]["message"] if reply.body else ""
        if reply.status not in REFUSALS or not message or "\n" in message:
            faults.append(f"{number}: status {reply.status}: {reply.body[:300]!r} to {body[:300]!r}")

    await asyncio.gather(*(request(number, *hostile_request(source)) for number in range(COUNT)))


def test_damaged_requests_are_answered_or_refused(engine):
    counts, faults = Counter(), []
    asyncio.run(play(make_app(engine, "m", "key"), counts, faults))
    statuses = ", ".join(f"{number:,} with {status}" for status, number in sorted(counts.items()))
    sys.stdout.write(f"\n{COUNT:,} requests, seed {SEED}: {statuses}, {len(faults)} faults\n")
    assert not faults, "\n".join(faults[:30])
    assert sum(counts.values()) == COUNT and counts[200] and counts[400] and counts[401]
    # The server still serves.
    intact = {"model": "m", **REQUESTS[0]}
    reply = asyncio.run(send(make_app(engine, "m", "key"), intact, headers={"authorization": "Bearer key"}))
    assert reply.status == 200 and reply.json["usage"]["completion_tokens"] >= 1
