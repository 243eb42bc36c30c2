"""One HTTP request to a web application, byte by byte and without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """Answer of the application, and the parts of the request that it read."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks_read: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]["message"]


async def send(
    app: Any,
    body: bytes | dict[str, Any] | Sequence[bytes] = b"",
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    leave: asyncio.Event | None = None,
    on_body: Callable[[bytes], None] | None = None,
) -> Reply:
    """Send a request.

    Args:
        app: The application.
        body: A value is sent as JSON; a list as the chunks of a body without a length.
        path: A chat request is posted; any other path is read.
        headers: Of the request.
        leave: The client disconnects once it is set; None: it waits for the answer.
        on_body: Takes each part of the answer as it comes.
    """
    reply = Reply()
    chunks = [json.dumps(body).encode() if isinstance(body, dict) else body]
    sent = {"host": "test", "content-type": "application/json", **(headers or {})}
    if isinstance(body, list):
        chunks = body
    else:
        sent.setdefault("content-length", str(len(chunks[0])))

    async def receive() -> dict[str, Any]:
        if reply.chunks_read == len(chunks):
            await (leave or asyncio.Event()).wait()
            return {"type": "http.disconnect"}
        reply.chunks_read += 1
        more = reply.chunks_read < len(chunks)
        return {"type": "http.request", "body": chunks[reply.chunks_read - 1], "more_body": more}

    async def respond(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            reply.status = event["status"]
            reply.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            reply.body += event["body"]
            if on_body is not None and event["body"]:
                on_body(event["body"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST" if path.endswith("completions") else "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }
    await app(scope, receive, respond)
    return reply
