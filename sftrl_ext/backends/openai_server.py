"""OpenAI-compatible chat-completions server for a local checkpoint, for `sftrl serve`.

It serves `sftrl eval --endpoint` and other clients of that interface: one answer to a dialogue of texts and
pictures, with a seed and a count of tokens. Any other option of a request is refused, never ignored.
Concurrent requests are decoded together.
"""

from __future__ import annotations

import base64
import io
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from sftrl_ext.rollout.player import Generation
from sftrl_ext.rollout.tokens import ChatTokens

DEFAULT_MAX_TOKENS = 512
"""Most tokens of an answer when the request names none."""


class ServedEngine(Protocol):
    """Engine behind the server."""

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], images: Sequence[Image.Image] = ()
    ) -> Generation:
        """Continue one prompt, which may show images."""
        ...

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        ...


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


class _ChatRequest(_Strict):
    """Chat request; a field that allows one value only is an option whose other values are not supported."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = Field(default=None, ge=0)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    user: str | None = None

    def sampling(self) -> dict[str, Any]:
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        options = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "seed")}
        return {"max_tokens": limit, **{name: value for name, value in options.items() if value is not None}}


def make_app(engine: ServedEngine, name: str) -> FastAPI:
    """Create the web application that serves one model.

    Args:
        engine: Generates.
        name: Name of the model in requests.
    """
    app = FastAPI(title="sftrl serve")
    started = int(time.time())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": started, "owned_by": "sftrl"}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(chat_request: _ChatRequest) -> dict[str, Any] | JSONResponse:
        if chat_request.model != name:
            return _error(
                404, f"there is no model {chat_request.model!r}; served is {name!r}", "model_not_found"
            )
        chat = engine.chat_tokens()
        try:
            prompt, images = _encode(chat, chat_request.messages)
            params = chat_request.sampling()
            generation = await engine.generate(prompt, params, images)
        except ValueError as error:  # a parameter out of range, a long prompt, a picture to a blind model
            return _error(400, str(error))
        ids = generation.token_ids[: params["max_tokens"]]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": chat.decode(ids)},
            "finish_reason": "stop" if ids and ids[-1] in chat.stops else "length",
        }
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": name,
            "choices": [choice],
            "usage": {**usage, "total_tokens": len(prompt) + len(ids)},
        }

    return app


def serve(engine: ServedEngine, name: str, host: str, port: int) -> None:
    """Serve until interrupted."""
    import uvicorn

    uvicorn.run(make_app(engine, name), host=host, port=port, log_level="warning")


def _error(status: int, message: str, code: str | None = None) -> JSONResponse:
    kind = "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _encode(chat: ChatTokens, messages: Sequence[_Message]) -> tuple[list[int], list[Image.Image]]:
    """Encode a dialogue: the prompt's tokens and its pictures, in order.

    Raises:
        ValueError: if a picture cannot be read, or the model or its chat template does not take the dialogue.
    """
    images: list[Image.Image] = []
    rendered = []
    for message in messages:
        content: Any = message.content or ""
        if not isinstance(content, str):
            parts = [_block(part) for part in content]
            shown = [part["image"] for part in parts if part["type"] == "image"]
            images += shown
            # A template of a text model takes strings only.
            content = parts if shown else "".join(part["text"] for part in parts)
        rendered.append({"role": message.role, "content": content})
    if images and not chat.builder.supports_multimodal():
        raise ValueError("this model sees no images, but the dialogue has some.")
    try:
        return list(chat.builder.build_initial_tokens(rendered, images=images or None)), images
    except Exception as error:
        raise ValueError(f"the chat template does not take this dialogue: {error}") from error


def _block(part: _Part) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    url = part.image_url.url if part.image_url else ""
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError("image_url: expected a data URL (data:image/png;base64,...); nothing is fetched.")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        return {"type": "image", "image": image.convert("RGB")}
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"image_url: no picture can be read from it ({error}).") from None
