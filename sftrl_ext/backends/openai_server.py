"""OpenAI-compatible chat-completions server for a local checkpoint, for `sftrl serve`.

It serves `sftrl eval --endpoint` and other clients of that interface: answers to a dialogue of texts and
pictures, whole or as a stream, with a seed, stop sequences and a count of tokens. Any other option of a
request is refused, never ignored.
Concurrent requests are decoded together. A client that disconnects frees its place among them.

Nothing a client sends holds the event loop: a body, its text and its pictures are bounded, and a thread
parses and encodes them.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import ipaddress
import json
import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from sftrl_ext.backends.answer_stream import Piece, Prompt, ServedEngine, merged
from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.tokens import ChatTokens

T = TypeVar("T")

DEFAULT_MAX_TOKENS = 512
"""Most tokens of an answer when the request names none."""

MAX_BODY = 32 << 20
"""Most bytes of a request: a dialogue with the pictures of all its turns."""

MAX_CHARACTERS = 1_000_000
"""Most characters of a dialogue: a second of encoding, and more tokens than a context has."""

MAX_ANSWERS = 64
"""Most answers to one request."""

MAX_STOP = 1000
"""Most stop sequences of a request, and most characters of one."""

MAX_PIXELS = 50_000_000
"""Most pixels of a dialogue's pictures, which a small file may decode to."""

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats of pictures; Pillow reads others by code that hostile files have abused."""

SHUTDOWN_S = 1
"""Seconds that answers under way get to end in, once the server is to stop; then Python itself takes two."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ImageUrl(BaseModel):
    url: str


class _Part(_Strict):
    type: Literal["text", "image_url"]
    text: str = ""
    image_url: _ImageUrl | None = None


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str | list[_Part] | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False


_StopText = Annotated[str, Field(max_length=MAX_STOP)]


class _ChatRequest(_Strict):
    """Chat request."""

    model: str
    messages: list[_Message] = Field(min_length=1, max_length=4096)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_ANSWERS)
    stop: str | list[_StopText] | None = Field(default=None, max_length=MAX_STOP)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def sampling(self) -> dict[str, Any]:
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        options = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "seed")}
        return {"max_tokens": limit, **{name: value for name, value in options.items() if value is not None}}


def make_app(engine: ServedEngine, name: str, key: str | None = None) -> FastAPI:
    """Create the web application that serves one model.

    Args:
        engine: Generates.
        name: Name of the model in requests.
        key: Key that clients must send; None: anyone is served.
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
        entry = {"id": name, "object": "model", "created": started, "owned_by": "sftrl"}
        return {"object": "list", "data": [entry]}

    @api.post("/chat/completions")
    async def complete(request: Request) -> Response:
        body = await _read(request)
        return await _while_connected(request, answer(body))

    async def answer(body: bytes) -> Response:
        chat = engine.chat_tokens()
        try:
            chat_request = await encode(partial(_ChatRequest.model_validate_json, body))
            if chat_request.model != name:
                message = f"there is no model {chat_request.model!r}; served is {name!r}"
                return _error(404, message, "model_not_found")
            params = chat_request.sampling()
            ids, images = await encode(partial(_encode, chat, chat_request.messages))
            streams = bool(chat_request.stream)
            prompt = Prompt(ids, images, params, chat_request.stops, streams)
            reply = _Reply(name, chat_request, len(ids))
            pieces = merged(engine, prompt, reply.count)
            # The first piece shows that the engine takes the request.
            first = await anext(pieces)
            if streams:
                return StreamingResponse(reply.events(first, pieces), media_type="text/event-stream")
            return JSONResponse(await reply.whole(first, pieces))
        except ValidationError as error:
            problem = error.errors()[0]
            return _error(400, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        except ValueError as error:  # a parameter out of range, a long prompt, a picture to a blind model
            return _error(400, str(error))

    @app.get("/health")
    async def health() -> Response:
        return Response()

    app.include_router(api)
    return app


class _Reply:
    """Reply to a chat request, whole or as a stream.

    Args:
        model: Name of the model.
        request: The request.
        prompt_tokens: Tokens of its prompt.
    """

    def __init__(self, model: str, request: _ChatRequest, prompt_tokens: int) -> None:
        self.count = request.n or 1
        self.with_usage = bool(request.stream_options and request.stream_options.include_usage)
        self.prompt_tokens = prompt_tokens
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self.tokens = [0] * self.count

    async def whole(self, first: Piece, pieces: AsyncGenerator[Piece, None]) -> dict[str, Any]:
        """Completion of all answers."""
        texts, finishes = [""] * self.count, [""] * self.count
        async for piece in _chained(first, pieces):
            texts[piece.index] += piece.text
            finishes[piece.index] = piece.finish or ""
            self.tokens[piece.index] = piece.tokens
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
            for index, (text, finish) in enumerate(zip(texts, finishes, strict=True))
        ]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self._usage()}

    async def events(self, first: Piece, pieces: AsyncGenerator[Piece, None]) -> AsyncIterator[str]:
        """Server-sent events of a stream."""
        for index in range(self.count):
            yield self._event(index, {"role": "assistant", "content": ""})
        async with aclosing(_chained(first, pieces)) as chained:
            async for piece in chained:
                self.tokens[piece.index] = piece.tokens
                if piece.text:
                    yield self._event(piece.index, {"content": piece.text})
                if piece.finish is not None:
                    yield self._event(piece.index, {}, piece.finish)
        if self.with_usage:
            yield self._chunk(choices=[], usage=self._usage())
        yield "data: [DONE]\n\n"

    def _event(self, index: int, delta: dict[str, str], finish: str | None = None) -> str:
        return self._chunk(choices=[{"index": index, "delta": delta, "finish_reason": finish}])

    def _chunk(self, **content: Any) -> str:
        chunk = {**self.head, "object": "chat.completion.chunk", **content}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def _usage(self) -> dict[str, int]:
        completion = sum(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


async def _chained(first: Piece, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    yield first
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


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


def serve(engine: ServedEngine, name: str, bound: socket.socket, key: str | None = None) -> None:
    """Serve until interrupted; answers under way then get `SHUTDOWN_S` seconds."""
    import uvicorn

    app = make_app(engine, name, key)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_S)
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


def _encode(chat: ChatTokens, messages: Sequence[_Message]) -> tuple[list[int], list[Image.Image]]:
    """Encode a dialogue: the prompt's tokens and its pictures, in order.

    Raises:
        ValueError: if the dialogue is too long, a picture cannot be read, or the model or its chat template
            does not take it.
    """
    characters = sum(len(text) for message in messages for text in _texts(message))
    if characters > MAX_CHARACTERS:
        raise ValueError(f"the dialogue has {characters} characters; expected at most {MAX_CHARACTERS}.")
    images: list[Image.Image] = []
    rendered = []
    for message in messages:
        content: Any = message.content or ""
        if not isinstance(content, str):
            parts = [_block(part, images) for part in content]
            # A template of a text model takes strings only.
            with_pictures = any(part["type"] == "image" for part in parts)
            content = parts if with_pictures else "".join(part["text"] for part in parts)
        rendered.append({"role": message.role, "content": content})
    if images and not chat.builder.supports_multimodal():
        raise ValueError("this model sees no images, but the dialogue has some.")
    try:
        return list(chat.builder.build_initial_tokens(rendered, images=images or None)), images
    except Exception as error:
        raise ValueError(f"the chat template does not take this dialogue: {error}") from error


def _texts(message: _Message) -> list[str]:
    """Texts of a message."""
    if isinstance(message.content, list):
        return [part.text for part in message.content]
    return [message.content or ""]


def _block(part: _Part, images: list[Image.Image]) -> dict[str, Any]:
    """A content block as a processor takes it; a picture is also appended to those of the dialogue."""
    if part.type == "text":
        return {"type": "text", "text": part.text}
    url = part.image_url.url if part.image_url else ""
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError("image_url: expected a data URL (data:image/png;base64,...); nothing is fetched.")
    with picture_errors("image_url: picture", ", ".join(IMAGE_FORMATS)):
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=IMAGE_FORMATS)
        # The size stands in the header: a picture too large is never decoded.
        pixels = sum(shown.width * shown.height for shown in (*images, image))
        if pixels > MAX_PIXELS:
            raise SftrlError(f"image_url: the dialogue has {pixels} pixels; expected at most {MAX_PIXELS}.")
        images.append(image.convert("RGB"))
    return {"type": "image", "image": images[-1]}
