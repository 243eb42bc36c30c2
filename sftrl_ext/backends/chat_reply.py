"""Replies to chat requests of the OpenAI interface, whole or as a stream of events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from sftrl_ext.backends.answer_stream import INCOMPLETE, Piece
from sftrl_ext.backends.chat_request import ChatRequest
from sftrl_ext.backends.sampled import SampledToken
from sftrl_ext.rollout.tokens import ChatTokens


class Reply:
    """Reply to a chat request, whole or as a stream.

    Args:
        model: Name of the model.
        request: The request.
        prompt_tokens: Tokens of its prompt.
        chat: Writes tokens as text.
    """

    def __init__(self, model: str, request: ChatRequest, prompt_tokens: int, chat: ChatTokens) -> None:
        self.count = request.n or 1
        self.chat = chat
        self.with_logprobs = bool(request.logprobs)
        self.with_usage = bool(request.stream_options and request.stream_options.include_usage)
        self.prompt_tokens = prompt_tokens
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self.tokens = [0] * self.count

    async def whole(self, first: Piece, pieces: AsyncGenerator[Piece, None]) -> dict[str, Any]:
        """Completion of all answers."""
        texts, finishes = [""] * self.count, [""] * self.count
        sampled: list[list[SampledToken]] = [[] for _ in range(self.count)]
        async for piece in _chained(first, pieces):
            texts[piece.index] += piece.text
            sampled[piece.index] += piece.sampled
            finishes[piece.index] = piece.finish or ""
            self.tokens[piece.index] = piece.tokens
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "logprobs": self._logprobs(sampled[index]),
                "finish_reason": finish,
            }
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
                if piece.text or piece.sampled:
                    yield self._event(piece.index, {"content": piece.text}, sampled=piece.sampled)
                if piece.finish is not None:
                    yield self._event(piece.index, {}, piece.finish)
        if self.with_usage:
            yield self._chunk(choices=[], usage=self._usage())
        yield "data: [DONE]\n\n"

    def _event(
        self,
        index: int,
        delta: dict[str, str],
        finish: str | None = None,
        sampled: Sequence[SampledToken] = (),
    ) -> str:
        logprobs = self._logprobs(sampled) if sampled else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._chunk(choices=[choice])

    def _logprobs(self, sampled: Sequence[SampledToken]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        entries = [
            {
                **self._entry(token.id, token.logprob),
                "top_logprobs": [self._entry(other, logprob) for other, logprob in token.top],
            }
            for token in sampled
        ]
        return {"content": entries, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = str(self.chat.tokenizer.decode([token]))
        # A token that is a part of a character has no text of its own.
        return {
            "token": text,
            "logprob": logprob,
            "bytes": None if INCOMPLETE in text else list(text.encode()),
        }

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
