"""`sftrl serve` under load: 64 clients, of which many leave, and a memory that does not grow.

``SFTRL_LOAD_SECONDS`` is how long, ``SFTRL_LOAD_LEAVERS`` how many clients leave in the midst of an answer:
`make nightly` takes 600 and 1,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

pytest.importorskip("verl")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx

from tests.backends.ascii_models import text_model

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("SFTRL_LOAD_SECONDS", "8"))
LEAVERS = int(os.environ.get("SFTRL_LOAD_LEAVERS", "40"))
SEED = int(os.environ.get("SFTRL_FAULT_SEED", "0"))
CLIENTS = 64
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address and process of a server of a tiny model."""
    folder = text_model(tmp_path_factory.mktemp("model") / "m")
    command = [sys.executable, "-m", "sftrl_ext.cli", "serve", str(folder), "--name", "m", "--port", "0"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield process.stdout.readline().split("//")[1].split("/")[0], process
    finally:
        process.kill()
        process.wait()


def body(source, **more):
    words = " ".join(source.choices(("red", "green", "blue"), k=source.randrange(1, 60)))
    request = {"model": "m", "messages": [{"role": "user", "content": words}], "seed": source.randrange(99)}
    return {**request, "max_tokens": source.choice((1, 4, 16)), "stream": source.random() < 0.3, **more}


class Load:
    """Clients of a server, and what they got."""

    def __init__(self, address, process):
        self.url, self.process = f"http://{address}", psutil.Process(process.pid)
        self.counts, self.faults, self.memory = Counter(), [], []

    async def run(self):
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        async with httpx.AsyncClient(base_url=self.url, timeout=600, limits=limits) as client:
            await self._healthy(client)
            watch = asyncio.create_task(self._watch())
            end = time.monotonic() + SECONDS
            await asyncio.gather(*(self._client(client, number, end) for number in range(CLIENTS)))
            watch.cancel()
            # Whoever has left holds no place.
            await self._whole(client, {**body(random.Random(0)), "stream": False})

    async def _healthy(self, client):
        """Wait for the first answer: the address is printed just before the server listens."""
        end = time.monotonic() + 60
        while True:
            try:
                reply = await client.get("/health")
                if reply.status_code == 200:
                    return
            except httpx.ConnectError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.1)

    async def _client(self, client, number, end):
        source = random.Random(f"{SEED}/{number}")
        share = LEAVERS // CLIENTS + (number < LEAVERS % CLIENTS)
        left = 0
        while time.monotonic() < end or left < share:
            if left < share and source.random() < 0.5:
                left += 1
                await self._leave(client, body(source, max_tokens=1500, stream=True), source)
                continue
            request = body(source)
            await (self._stream if request["stream"] else self._whole)(client, request)

    async def _whole(self, client, request):
        reply = await client.post("/v1/chat/completions", json=request)
        self._check(reply.status_code, reply.json() if reply.status_code == 200 else reply.text, request)

    async def _stream(self, client, request):
        async with client.stream("POST", "/v1/chat/completions", json=request) as reply:
            lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line]
        if lines[-1] != "[DONE]":
            self.faults.append(f"a stream ends with {lines[-1]!r}")
        finish = [json.loads(line)["choices"][0]["finish_reason"] for line in lines[:-1]][-1]
        self.counts[f"streamed, {finish}"] += 1

    async def _leave(self, client, request, source):
        async with client.stream("POST", "/v1/chat/completions", json=request) as reply:
            pieces = source.randrange(1, 4)
            async for _ in reply.aiter_lines():
                pieces -= 1
                if pieces == 0:
                    break
        self.counts["left"] += 1

    def _check(self, status, answer, request):
        if status != 200:
            self.faults.append(f"{status}: {answer}")
            return
        [choice] = answer["choices"]
        self.counts[f"whole, {choice['finish_reason']}"] += 1
        tokens = answer["usage"]["completion_tokens"]
        if not 1 <= tokens <= request["max_tokens"]:
            self.faults.append(f"{tokens} tokens where {request['max_tokens']} were the most")

    async def _watch(self):
        while True:
            self.memory.append(self.process.memory_info().rss)
            await asyncio.sleep(min(1.0, SECONDS / 20))


def test_clients_that_come_and_leave_cost_no_memory(server):
    address, process = server
    load = Load(address, process)
    started = time.monotonic()
    asyncio.run(load.run())
    part = max(1, len(load.memory) // 3)
    before, after = (statistics.median(samples) for samples in (load.memory[part:-part], load.memory[-part:]))
    counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(load.counts.items()))
    memory = " to ".join(f"{size / MIB:.0f}" for size in (load.memory[0], before, after))
    seconds = time.monotonic() - started
    sys.stdout.write(f"\n{CLIENTS} clients, {seconds:.0f} s: {counts}; memory {memory} MiB\n")
    assert not load.faults, load.faults[:20]
    assert load.counts["left"] == LEAVERS and process.poll() is None
    assert after < 1.1 * before + 32 * MIB
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
