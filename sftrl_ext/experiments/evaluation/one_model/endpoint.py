"""A model behind an OpenAI-compatible address: requests, retries, and what its refusals mean.

The `openai` package sends the requests. It tries again after 408, 409, 429, 5xx, a timeout, a broken
connection or an answer that is no chat completion, waiting longer each time (with jitter, or as long as the
server's Retry-After says).
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.one_model.bounded_client import bounded_client, httpx_of
from sftrl_ext.paths import install_command
from sftrl_ext.rollout.messages import TEMPLATE_KEY, Completion, DialogueTooLong

if TYPE_CHECKING:
    from PIL.Image import Image

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds the key, if no other is named."""

_TOO_LONG = re.compile(
    r"context.?(length|size|window)|maximum model length|(prompt|input) (is|was) too long"
    r"|token count exceeds",
    re.IGNORECASE,
)
"""Messages of servers about a dialogue that does not fit; there is no common code for it."""

_FILTERED = ("content_filter", "content_policy_violation")
_FAULTS = ("error", "abort")
"""Finish reasons of servers that failed after they had answered with status 200."""


class Unanswered(SftrlError):
    """A request without an answer of the model: all its tries failed, or the server refuses it."""


@dataclass(frozen=True)
class EndpointOptions:
    """Address of a served model, and settings of its requests.

    Attributes:
        url: The base address, as in ``http://localhost:8000/v1``.
        key_variable: Environment variable with the key. The key itself is kept out of every message and file.
        concurrency: Most requests in flight.
        retries: How often a request is tried again.
        timeout_s: Limit of one try, from connecting to the last byte, in seconds.
        extra: Further keys of the request's body; a key that is None is left out of it.
    """

    url: str
    key_variable: str = KEY_VARIABLE
    concurrency: int = 8
    retries: int = 6
    timeout_s: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SftrlError(f"endpoint {self.url!r}: expected an address as in http://localhost:8000/v1.")
        if parts.username or parts.password:
            raise SftrlError(
                f"endpoint at {parts.hostname!r}: the address holds a user or password; "
                f"put the key into the environment variable {self.key_variable}."
            )
        if parts.query or parts.fragment:
            raise SftrlError(f"endpoint at {parts.hostname!r}: the address ends in a query; expected none.")
        for name, value, minimum in (("concurrency", self.concurrency, 1), ("retries", self.retries, 0)):
            if value < minimum:
                raise SftrlError(f"{name} is {value}, expected {minimum} or more.")
        if not self.timeout_s > 0:
            raise SftrlError(f"timeout is {self.timeout_s}, expected more than 0 seconds.")


class Endpoint:
    """The client; use it in one event loop, as ``async with Endpoint(options) as endpoint``.

    Args:
        options: Where and how.
        model: The model's name there; None if only one is served, see :meth:`served_model`.

    Raises:
        SftrlError: if the package is missing, or the named environment variable is not set.
    """

    def __init__(self, options: EndpointOptions, model: str | None) -> None:
        try:
            import openai
        except ModuleNotFoundError:
            raise SftrlError(
                "an endpoint needs the package openai, not in this environment: "
                f"`{install_command('endpoint')}`."
            ) from None
        self._openai = openai
        self._key = os.environ.get(options.key_variable, "")
        if not self._key and options.key_variable != KEY_VARIABLE:
            raise SftrlError(f"the environment variable {options.key_variable} is not set; it names no key.")
        self.options, self.model = options, model
        self._answered = False
        self._client = openai.AsyncOpenAI(
            base_url=options.url,
            api_key=self._key or "none",  # a server without keys takes any
            max_retries=options.retries,
            http_client=bounded_client(openai, options.timeout_s, check_body),
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def served_model(self) -> str:
        """The one model that is served there.

        Raises:
            SftrlError: if the server cannot be reached, or says that it serves none or several.
        """
        try:
            raw = await self._client.models.with_raw_response.list()
        except self._openai.APIError as error:
            raise self._translated(error) from None
        names = list(parse_models(raw.content))
        if len(names) != 1:
            some = ", ".join(sorted(names)[:10]) or "none"
            raise SftrlError(f"{self.options.url} serves {len(names)} models ({some}); name one by --model.")
        return names[0]

    async def template(self) -> str | None:
        """Prompt template that the model was trained with, if the server names it, as `sftrl serve` does."""
        try:
            raw = await self._client.with_options(max_retries=0).models.with_raw_response.list()
        except self._openai.APIError:
            return None  # a server need not list its models
        return parse_models(raw.content).get(str(self.model))

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        **sampling: float,
    ) -> Completion:
        """Ask for one answer.

        Args:
            messages: As `sftrl_ext.rollout.tokens.with_images` gives them.
            temperature: Sampling temperature.
            max_tokens: Most tokens of the answer.
            seed: Seed of the answer, as far as the server heeds it.
            sampling: Further parameters of the request, such as ``top_p``.

        Returns:
            The answer; its text is empty if the model gave none or a filter took it.

        Raises:
            DialogueTooLong: if this dialogue does not fit into the model's context.
            Unanswered: if every try failed for a reason that may pass, or this dialogue is refused.
            SftrlError: if no request can succeed: a wrong key, name, address or parameter.
        """
        parameters = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, **sampling}
        parameters |= self.options.extra
        body = {key: value for key, value in parameters.items() if value is not None}
        wired = await asyncio.to_thread(lambda: [wire_message(message) for message in messages])
        create: Any = self._client.chat.completions.with_raw_response.create
        try:
            raw = await create(model=self.model, messages=wired, extra_body=body)
        except self._openai.APIError as error:
            if getattr(error, "code", None) in _FILTERED:
                return Completion("", extra={"finish_reason": "content_filter"})
            raise self._translated(error) from None
        self._answered = True
        return _read(*parse_completion(raw.content), raw.retries_taken)

    def _translated(self, error: Any) -> Exception:
        """The error of the evaluation for an error of the package."""
        openai, url = self._openai, self.options.url
        if isinstance(error, openai.APITimeoutError):
            return Unanswered(f"{url} gave no answer within {self.options.timeout_s:g} seconds.")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            if isinstance(cause, (httpx_of(openai).ConnectError, httpx_of(openai).ProxyError)):
                return SftrlError(self._clean(f"{url} cannot be reached ({cause}). Is the server running?"))
            reason = str(cause).rstrip(".") or type(cause).__name__
            return Unanswered(self._clean(f"{url} failed {self._tries} times, at last with: {reason}."))
        status = getattr(error, "status_code", None)
        message = self._clean(str(error.message))[:500].rstrip(".") + "."
        if status == 401:
            state = "" if self._key else ", which is not set"
            return SftrlError(
                f"{url} refuses the key: {message} The key is read from the environment variable "
                f"{self.options.key_variable}{state}."
            )
        if status == 403:
            return SftrlError(f"{url} does not allow this key the model {self.model!r}: {message}")
        if status == 404:
            return SftrlError(
                f"{url}: no model {self.model!r}, or nothing that answers chats at this address: {message} "
                "The address usually ends in /v1."
            )
        if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
            if error.code == "context_length_exceeded" or _TOO_LONG.search(message):
                return DialogueTooLong(message)
            # After a first answer key, name and parameters are known to be right. What is refused is this
            # dialogue, or any one from now on (402: the credit is used up); the model has answered neither.
            if self._answered:
                return Unanswered(f"{url} refuses a dialogue: {message}")
            return SftrlError(f"{url} does not take the request: {message} --extra changes its parameters.")
        return Unanswered(f"{url} failed {self._tries} times, at last with: {message}")

    @property
    def _tries(self) -> int:
        return self.options.retries + 1

    def _clean(self, text: str) -> str:
        """A text of the server's without the key, or the parts of it, that it may repeat."""
        return without_key(text, self._key)


def check_body(method: str, body: bytes) -> None:
    """Check an answer: only chats are posted, and only the list of models is got.

    Raises:
        ValueError: if it is something else.
    """
    parse_completion(body) if method == "POST" else parse_models(body)


def parse_models(body: bytes) -> dict[str, str | None]:
    """Names in a list of models, and the prompt template of each that `sftrl serve` knows one of.

    Raises:
        ValueError: if the body is something else.
    """
    answer = _parse_json(body)
    try:
        models = list(answer["data"])
        names = [model["id"] for model in models]
    except (TypeError, KeyError):
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"the answer is not a list of models but {_start(body)!r}. The address usually ends in /v1"
        )
    templates = [model.get(TEMPLATE_KEY) for model in models]
    return {
        without_surrogates(name): template if isinstance(template, str) else None
        for name, template in zip(names, templates, strict=True)
    }


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON ({str(error)[:100]}) in {_start(body)!r}") from None


def _start(body: bytes) -> str:
    return body[:200].decode(errors="replace")


def parse_completion(body: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """First choice and token counts of a chat completion; the counts are empty where the server gives none.

    Raises:
        ValueError: if the body is something else.
    """
    answer = _parse_json(body)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict) or not message:
        raise ValueError(
            f"the answer is not a chat completion but {_start(body)!r}. The address usually ends in /v1"
        )
    for key, value in (
        ("content", message.get("content")),
        ("finish_reason", choice.get("finish_reason")),
    ):
        if not isinstance(value, str | None):
            raise ValueError(f"{key} is {str(value)[:100]!r}; expected a text or null")
    if choice.get("finish_reason") in _FAULTS:
        raise ValueError(f"the server broke off: finish_reason is {choice['finish_reason']!r}")
    return choice, _token_counts(answer.get("usage"))


def _token_counts(usage: Any) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens")
    counts = {name: usage.get(name) or 0 for name in names} if isinstance(usage, dict) else {}
    return counts if all(type(count) is int and 0 <= count < 2**53 for count in counts.values()) else {}


def _read(choice: Mapping[str, Any], counts: Mapping[str, int], retries: int) -> Completion:
    finish_reason = choice.get("finish_reason")
    extra = {"finish_reason": finish_reason, "retries": retries}
    if not counts:
        extra["no_usage"] = True
    text = choice["message"].get("content") or ""
    return Completion(
        text="" if finish_reason == "content_filter" else without_surrogates(text),
        cut=finish_reason == "length",
        prompt_tokens=counts.get("prompt_tokens", 0),
        completion_tokens=counts.get("completion_tokens", 0),
        extra=extra,
    )


_KEY_PART = 4
"""Characters of a key that give a part of it away; servers repeat as many of a wrong one, from either end."""


def without_key(text: str, key: str) -> str:
    """Replace the key, and every part of it of `_KEY_PART` characters or more, by ``***``."""
    size = max(1, min(_KEY_PART, len(key)))
    parts = {key[start : start + size] for start in range(len(key) - size + 1)}
    hidden = set[int]()
    for start in range(len(text) - size + 1):
        if text[start : start + size] in parts:
            hidden.update(range(start, start + size))
    shown = ("\0" if index in hidden else character for index, character in enumerate(text))
    return re.sub("\0+", "***", "".join(shown)) if hidden else text


def without_surrogates(text: str) -> str:
    """Replace lone surrogates: JSON can escape them, but no file and no request can hold them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def wire_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a message of `with_images` to the format of the interface: pictures become data URLs."""
    content = message["content"]
    if not isinstance(content, str):
        content = [
            {"type": "image_url", "image_url": {"url": data_url(part["image"])}}
            if part["type"] == "image"
            else dict(part)
            for part in content
        ]
    return {"role": message["role"], "content": content}


def data_url(image: Image) -> str:
    """A picture as a PNG in a data URL."""
    png = io.BytesIO()
    image.save(png, format="PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
