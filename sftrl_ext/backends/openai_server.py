"""OpenAI-compatible chat-completions server for a local checkpoint, for `sftrl serve`.

It serves `sftrl eval --endpoint` and other clients of that interface. `chat_request` has what a request may
ask for, `chat_reply` what is answered.
Concurrent requests are decoded together. A client that disconnects frees its place among them.

Nothing a client sends holds the event loop: a body, its text and its pictures are bounded, and a thread
parses and encodes them.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from sftrl_ext.backends.answer_stream import Prompt, ServedEngine, merged
from sftrl_ext.backends.chat_reply import Reply
from sftrl_ext.backends.chat_request import ChatRequest, encode_dialogue
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.messages import TEMPLATE_KEY

T = TypeVar("T")

MAX_BODY = 32 << 20
"""Most bytes of a request: a dialogue with the pictures of all its turns."""

SHUTDOWN_S = 1
"""Seconds that answers under way get to end in, once the server is to stop; then Python itself takes two."""


KEEP_ALIVE_S = 75
"""Seconds that an idle connection stays open, longer than clients keep theirs (httpx, and so openai's: 5 s).
One that the server closes as a request is sent on it loses that request."""


def make_app(engine: ServedEngine, name: str, key: str | None = None, template: str | None = None) -> FastAPI:
    """Create the web application that serves one model.

    Args:
        engine: Generates.
        name: Name of the model in requests.
        key: Key that clients must send; None: anyone is served.
        template: Prompt template that the model was trained with, for the list of models; None: not known.
    """
    app = FastAPI(title="sftrl serve", openapi_url=None)
    api = APIRouter(prefix="/v1", dependencies=[Depends(partial(_authorize, key))])
    started = int(time.time())
    # One thread: a tokenizer encodes one text at a time.
    encoder = ThreadPoolExecutor(1, "encode")

    async def encode(work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(encoder, work)

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
        return _error(error.status_code, error.detail, headers=error.headers)

    @api.get("/models")
    async def models() -> dict[str, Any]:
        entry: dict[str, Any] = {"id": name, "object": "model", "created": started, "owned_by": "sftrl"}
        if template is not None:
            entry[TEMPLATE_KEY] = template
        return {"object": "list", "data": [entry]}

    @api.post("/chat/completions")
    async def complete(request: Request) -> Response:
        body = await _read(request)
        return await _while_connected(request, answer(body))

    async def answer(body: bytes) -> Response:
        chat = engine.chat_tokens()
        try:
            chat_request = await encode(partial(ChatRequest.model_validate_json, body))
            if chat_request.model != name:
                message = f"there is no model {chat_request.model!r}; served is {name!r}"
                return _error(404, message, "model_not_found")
            params = chat_request.sampling()
            ids, images = await encode(partial(encode_dialogue, chat, chat_request.messages))
            streams, scored = bool(chat_request.stream), bool(chat_request.logprobs)
            prompt = Prompt(ids, images, params, chat_request.stops, streams, scored)
            reply = Reply(name, chat_request, len(ids), chat)
            pieces = merged(engine, prompt, reply.count)
            # The first piece shows that the engine takes the request.
            first = await anext(pieces)
            if streams:
                return StreamingResponse(reply.events(first, pieces), media_type="text/event-stream")
            return JSONResponse(await reply.whole(first, pieces))
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            return _error(400, f"{place}: {problem['msg']}" if place else problem["msg"])
        except ValueError as error:  # a parameter out of range, a long prompt, a picture to a blind model
            return _error(400, str(error))

    @app.get("/health")
    async def health() -> Response:
        return Response()

    app.include_router(api)
    return app


def key_of(variable: str | None, host: str, insecure: bool) -> str | None:
    """Key that clients must send, from an environment variable; None without one.

    Raises:
        SftrlError: if the variable is empty, or there is none and other machines could reach the server.
    """
    if variable is not None:
        key = os.environ.get(variable, "")
        if not key:
            raise SftrlError(
                f"--api-key-variable {variable}: found no such environment variable, or an empty one."
            )
        return key
    if not insecure and not _is_loopback(host):
        raise SftrlError(
            f"--host {host}: other machines could use the model; expected --api-key-variable NAME, a host of "
            "this machine only (127.0.0.1), or --insecure."
        )
    return None


def bind(host: str, port: int) -> socket.socket:
    """Reserve the server's address before the model is loaded; port 0 is a free one.

    Raises:
        SftrlError: if the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise SftrlError(f"--host {host} --port {port}: cannot serve there ({error}).") from None
    return bound


def serve(
    engine: ServedEngine,
    name: str,
    bound: socket.socket,
    key: str | None = None,
    template: str | None = None,
) -> None:
    """Serve until interrupted; answers under way then get `SHUTDOWN_S` seconds."""
    import uvicorn

    app = make_app(engine, name, key, template)
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_S, timeout_keep_alive=KEEP_ALIVE_S
    )
    uvicorn.Server(config).run(sockets=[bound])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _authorize(key: str | None, request: Request) -> None:
    """Refuse a request without the key."""
    sent = request.headers.get("authorization", "").encode("latin-1")
    # The comparison takes the same time wherever the keys differ.
    if key is not None and not hmac.compare_digest(sent, f"Bearer {key}".encode()):
        raise HTTPException(401, "the API key is missing or wrong", {"www-authenticate": "Bearer", **_CLOSE})


_CLOSE = {"connection": "close"}
"""Header of an answer to a request whose body is not read: what follows on the connection is no request."""


async def _read(request: Request) -> bytes:
    """Body of a request; one over the limit is refused without reading on."""
    length = request.headers.get("content-length", "")
    body = bytearray()
    if not (length.isdecimal() and int(length) > MAX_BODY):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
        else:
            return bytes(body)
    raise HTTPException(413, f"the request has more than {MAX_BODY >> 20} MB", _CLOSE)


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Await the answer to a request; it is cancelled once the client is gone."""
    answering = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        # The answer to a client that is gone is sent nowhere.
        return await answering if answering.done() else Response(status_code=499)
    except asyncio.CancelledError:
        return _error(503, "the server stops")
    finally:
        answering.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    """Wait until the client of a request, whose body was read, has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, message: str, code: str | None = None, headers: Any = None) -> JSONResponse:
    kind = "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status, headers)
