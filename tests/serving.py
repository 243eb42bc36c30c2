"""A web application on a free port for the time of a test, and what it saw."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response


@dataclass
class Seen:
    """What a server saw of its clients."""

    url: str
    in_flight: int = 0
    most_in_flight: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextmanager
def served(app: FastAPI) -> Iterator[Seen]:
    """Serve ``app`` in a thread."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    seen = Seen(f"http://127.0.0.1:{sock.getsockname()[1]}/v1")

    @app.middleware("http")
    async def watch(request: Request, call_next: Callable[[Request], Any]) -> Any:
        if request.method == "POST":
            seen.requests.append(json.loads(await request.body()))
        seen.keys.add(request.headers.get("authorization", ""))
        seen.in_flight += 1
        seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)
        try:
            return await call_next(request)
        finally:
            seen.in_flight -= 1

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield seen
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()
        sock.close()


def canned(reply: Callable[[dict[str, Any]], Any]) -> FastAPI:
    """A server that answers a chat request with what ``reply`` makes of its body.

    ``reply`` may return a text, a whole choice, or a response such as an error.
    """
    app = FastAPI()

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: Request) -> Any:
        said = reply(await request.json())
        if hasattr(said, "__await__"):
            said = await said
        if isinstance(said, Response):
            return said
        if isinstance(said, str):
            said = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, **said}],
            "usage": usage,
        }

    return app


def error(status: int, message: str, **more: Any) -> JSONResponse:
    """An error as OpenAI writes it; a client need not wait long before it tries again."""
    body = {"error": {"message": message, "type": "t", "param": None, "code": None, **more}}
    return JSONResponse(body, status, headers={"retry-after-ms": "5"})
