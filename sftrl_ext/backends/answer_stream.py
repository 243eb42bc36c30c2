"""Answers of an engine as text that grows, with stop sequences, for `sftrl serve`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from sftrl_ext.backends.sampled import OnTokens, SampledToken
from sftrl_ext.rollout.player import Generation
from sftrl_ext.rollout.tokens import ChatTokens

INCOMPLETE = "\ufffd"
"""Text that a tokenizer writes for the bytes of a character that is not whole yet."""


class ServedEngine(Protocol):
    """Engine behind the server."""

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Sequence[Image.Image] = (),
        on_tokens: OnTokens | None = None,
    ) -> Generation:
        """Continue one prompt, which may show images; cancelling the call ends the generation."""
        ...

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        ...


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        index: Number of the answer among those to the same request.
        text: Its next characters.
        finish: ``stop`` or ``length`` in the last piece, else None.
        tokens: Tokens of the answer so far.
        sampled: Its next tokens, if the request asks for their log-probabilities; the token that ends a turn
            has no text and is not among them.
    """

    index: int
    text: str
    finish: str | None = None
    tokens: int = 0
    sampled: Sequence[SampledToken] = ()


@dataclass(frozen=True)
class Prompt:
    """An encoded request.

    Attributes:
        ids: The prompt's tokens.
        images: Its pictures, in order.
        sampling: Sampling parameters, ``max_tokens`` among them.
        stop: Texts that end an answer and are not part of it.
        grows: True to give the text while it is sampled, False to give it at the end.
        scored: True to give the tokens with their log-probabilities.
    """

    ids: list[int]
    images: Sequence[Image.Image]
    sampling: dict[str, Any]
    stop: Sequence[str] = ()
    grows: bool = False
    scored: bool = False


async def merged(engine: ServedEngine, prompt: Prompt, count: int) -> AsyncGenerator[Piece, None]:
    """Pieces of so many answers to a prompt as they come, each sampled with a seed of its own."""
    queue: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()

    async def collect(index: int) -> None:
        try:
            async for piece in _pieces(engine, prompt, index):
                queue.put_nowait(piece)
            queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - raised below, in the request's own task
            queue.put_nowait(error)

    tasks = [asyncio.ensure_future(collect(index)) for index in range(count)]
    try:
        while count:
            item = await queue.get()
            if item is None:
                count -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()


async def _pieces(engine: ServedEngine, prompt: Prompt, index: int) -> AsyncIterator[Piece]:
    """Pieces of one answer."""
    chat, params = engine.chat_tokens(), dict(prompt.sampling)
    if params.get("seed") is not None:
        params["seed"] += index
    if not (prompt.grows or prompt.stop or prompt.scored):
        generation = await engine.generate(prompt.ids, params, prompt.images)
        ids = generation.token_ids[: params["max_tokens"]]
        yield Piece(index, chat.decode(ids), _finish(chat, ids), len(ids))
        return
    text, stops, tokens = TextStream(chat), StopSequences(prompt.stop), TokensOfText()

    def piece(new: str, finish: str | None) -> Piece:
        sampled = tokens.take(len(new), finish)
        return Piece(index, new, finish, len(text.ids), sampled if prompt.scored else ())

    async with aclosing(_tokens(engine, prompt, params)) as growing:
        async for sampled in growing:
            new = ""
            for token in sampled:
                grown = text.add([token.id])
                tokens.add(token, len(grown))
                new += stops.add(grown)
                if stops.reached:
                    yield piece(new, "stop")
                    return
            if new:
                yield piece(new, None)
    last = stops.add(text.rest()) + stops.rest()
    yield piece(last, "stop" if stops.reached else _finish(chat, text.ids))


def _finish(chat: ChatTokens, ids: Sequence[int]) -> str:
    return "stop" if ids and ids[-1] in chat.stops else "length"


async def _tokens(
    engine: ServedEngine, prompt: Prompt, params: dict[str, Any]
) -> AsyncGenerator[list[SampledToken], None]:
    """Tokens of a generation as they are sampled; closing the iterator ends the generation."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[SampledToken] | None] = asyncio.Queue()

    def on_tokens(sampled: list[SampledToken]) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, sampled)

    generating = asyncio.ensure_future(engine.generate(prompt.ids, params, prompt.images, on_tokens))
    # The engine reports the last tokens before its call returns.
    generating.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (sampled := await queue.get()) is not None:
            yield sampled
        await generating
    finally:
        generating.cancel()


class TextStream:
    """Text of tokens as they come; a character waits until all its bytes are there.

    Only the tokens since the last whole character are decoded, with some before them, because a tokenizer
    writes a token by what stands before it.
    """

    def __init__(self, chat: ChatTokens) -> None:
        self.chat = chat
        self.ids: list[int] = []
        self._context, self._written = 0, 0

    def add(self, ids: Sequence[int]) -> str:
        """Text that tokens complete."""
        self.ids += ids
        text = self._new_text()
        if not text or text.endswith(INCOMPLETE):
            return ""
        self._context, self._written = self._written, len(self.ids)
        return text

    def rest(self) -> str:
        """Text of tokens that still wait, complete or not."""
        text = self._new_text()
        self._written = len(self.ids)
        return text

    def _new_text(self) -> str:
        before = self.chat.decode(self.ids[self._context : self._written])
        return self.chat.decode(self.ids[self._context :])[len(before) :]


class TokensOfText:
    """Tokens whose text is in the answer so far; a stop sequence leaves some out."""

    def __init__(self) -> None:
        self._sampled, self._written = 0, 0
        self._waiting: deque[tuple[SampledToken, int, int]] = deque()

    def add(self, token: SampledToken, characters: int) -> None:
        """Add a token that completes so many characters, whether the answer has them yet or not."""
        begin = self._sampled
        self._sampled += characters
        self._waiting.append((token, begin, self._sampled))

    def take(self, characters: int, finish: str | None) -> list[SampledToken]:
        """Tokens of so many further characters of the answer; at its end those that are partly in it, too."""
        self._written += characters
        tokens = []
        while self._waiting:
            token, begin, end = self._waiting[0]
            if begin >= self._written or (finish is None and end > self._written):
                break
            tokens.append(token)
            self._waiting.popleft()
        return tokens


class StopSequences:
    """Text up to the first of some sequences; what may be the beginning of one is held back.

    Attributes:
        reached: True once a sequence stood in the text.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = [sequence for sequence in stop if sequence]
        self.reached = False
        self._held = ""

    def add(self, text: str) -> str:
        """Characters that belong to the answer, whatever follows."""
        self._held += text
        ends = [end for sequence in self.stop if (end := self._held.find(sequence)) >= 0]
        if ends:
            self.reached = True
            return self._take(min(ends))
        return self._take(len(self._held) - self._beginning())

    def rest(self) -> str:
        """Characters held back at the end of the text, where no sequence was reached."""
        return "" if self.reached else self._take(len(self._held))

    def _take(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released

    def _beginning(self) -> int:
        """Length of the longest end of the text that begins a sequence."""
        longest = max(map(len, self.stop), default=1) - 1
        return next(
            (
                length
                for length in range(min(longest, len(self._held)), 0, -1)
                if any(sequence.startswith(self._held[-length:]) for sequence in self.stop)
            ),
            0,
        )
