"""Transformers engine for evaluation, in this process, without ray; one start for all checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from sftrl_ext.backends.hf.batcher import Batcher
from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.backends.hf.json_answers import JsonAnswers
from sftrl_ext.backends.hf.kl import segment_kl
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.backends.sampled import OnTokens
from sftrl_ext.rollout.player import Generation, Segment
from sftrl_ext.rollout.tokens import ChatTokens, load_chat_tokens


class LocalEngine:
    """Transformers engine with the interface of evaluation.

    Args:
        folder: A Hugging Face folder: the architecture and the tokenizer of every checkpoint to come.
        dtype: Type of the weights and the arithmetic.
        max_rows: Requests decoded at the same time.
        device: Where the model is.
    """

    name = "hf"

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float32,
        max_rows: int = 256,
        device: str = "cpu",
    ) -> None:
        self._chat = load_chat_tokens(folder)
        self._new_engine = partial(Engine.from_folder, folder, dtype=dtype, max_rows=max_rows, device=device)
        self._batcher = Batcher(self._new_engine())
        self._second: Engine | None = None
        self._second_folder: Path | None = None

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Sequence[Image] = (),
        on_tokens: OnTokens | None = None,
    ) -> Generation:
        """Continue one prompt; concurrent calls are decoded together.

        Args:
            prompt_ids: Token ids.
            sampling_params: Arguments of `Sampling`, and ``json_schema``, to which the response is held.
            images: What the prompt's placeholders stand for.
            on_tokens: Takes new tokens as they are sampled, in the engine's thread.
        """
        params = dict(sampling_params)
        schema = params.pop("json_schema", None)
        request = Request(prompt_ids, Sampling(**params), images, on_tokens=on_tokens)
        if schema is not None:
            request.constraint = await asyncio.to_thread(lambda: self._json_answers.constraint(schema))
        result = await self._batcher.generate(request)
        return Generation(token_ids=result.token_ids, logprobs=result.log_probs)

    async def load_weights(self, folder: Path) -> None:
        """Load the weights of another checkpoint."""

        def load() -> None:
            with self._batcher.stopped() as engine:
                engine.load_weights(folder)

        await asyncio.to_thread(load)

    async def divergence(
        self, segments: Sequence[Segment], other: Path, temperature: float, *, to_other: bool
    ) -> list[float]:
        """Compute the KL divergence from or to another checkpoint, summed over each segment's model tokens.

        The other checkpoint's weights stay in memory until a third checkpoint is compared.

        Args:
            segments: Dialogues as they were played.
            other: The other checkpoint's folder.
            temperature: As in `generate`.
            to_other: True for KL(this || other), False for KL(other || this).

        Returns:
            Nats of each segment.
        """

        def measure() -> list[float]:
            second = self._second_engine(other)
            with self._batcher.stopped() as engine:
                pair = (engine, second) if to_other else (second, engine)
                return segment_kl(*pair, segments, temperature)

        return await asyncio.to_thread(measure)

    @cached_property
    def _json_answers(self) -> JsonAnswers:
        return JsonAnswers(self._chat.tokenizer, self._chat.stops)

    def _second_engine(self, folder: Path) -> Engine:
        """Load a checkpoint into a second engine."""
        if self._second is None:
            self._second = self._new_engine()
        if self._second_folder != folder:
            self._second_folder = None
            self._second.load_weights(folder)
            self._second_folder = folder
        return self._second

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        return self._chat

    def close(self) -> None:
        """End the engine's thread."""
        self._batcher.close()
