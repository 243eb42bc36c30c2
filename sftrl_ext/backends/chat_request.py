"""Chat requests of the OpenAI interface, as `sftrl serve` understands them.

What a client may ask for is listed here; any other option is refused, never ignored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.tokens import ChatTokens

DEFAULT_MAX_TOKENS = 512
"""Most tokens of an answer when the request names none."""

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

MAX_TOP_LOGPROBS = 20
"""Most tokens reported at every place of an answer."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ImageUrl(BaseModel):
    url: str


class _Part(_Strict):
    type: Literal["text", "image_url"]
    text: str = ""
    image_url: _ImageUrl | None = None


class Message(BaseModel):
    """Message of a dialogue: a text, or texts and pictures."""

    role: Literal["system", "user", "assistant"]
    content: str | list[_Part] | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False


class _JsonSchema(BaseModel):
    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class _ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> _ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("expected json_schema with the type json_schema, and with no other")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """JSON schema of an answer; None: any text."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


_StopText = Annotated[str, Field(max_length=MAX_STOP)]


class ChatRequest(_Strict):
    """Chat request."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=4096)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = Field(default=None, ge=-1, le=2**31 - 1)
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_ANSWERS)
    stop: str | list[_StopText] | None = Field(default=None, max_length=MAX_STOP)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: _ResponseFormat | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _reports_what_it_counts(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: expected logprobs: true beside it")
        return self

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def sampling(self) -> dict[str, Any]:
        """Sampling parameters, by the engines' names."""
        names = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
        options = {name: getattr(self, name) for name in names}
        options["logprobs"] = self.top_logprobs
        options["json_schema"] = self.response_format and self.response_format.schema_of_answer
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        return {"max_tokens": limit, **{name: value for name, value in options.items() if value is not None}}


def encode_dialogue(chat: ChatTokens, messages: Sequence[Message]) -> tuple[list[int], list[Image.Image]]:
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


def _texts(message: Message) -> list[str]:
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
