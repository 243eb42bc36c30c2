"""An engine in this very process for evaluation: no ray, no verl workers, one start for all checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from sftrl_ext.backends.batcher import Batcher
from sftrl_ext.backends.engine import Engine, Request
from sftrl_ext.backends.sampling import Sampling
from sftrl_ext.rollout.player import Generation
from sftrl_ext.rollout.tokens import ChatTokens, load_chat_tokens


class LocalEngine:
    """The transformers engine behind the interface that evaluation uses.

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
        self._batcher = Batcher(Engine.from_folder(folder, dtype=dtype, max_rows=max_rows, device=device))

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], images: Sequence[Image] = ()
    ) -> Generation:
        """Continue one prompt; concurrent calls are decoded together."""
        result = await self._batcher.generate(Request(prompt_ids, Sampling(**sampling_params), images))
        return Generation(token_ids=result.token_ids, logprobs=result.log_probs)

    async def load_weights(self, folder: Path) -> None:
        """Take the weights of another checkpoint."""

        def load() -> None:
            with self._batcher.stopped() as engine:
                engine.load_weights(folder)

        await asyncio.to_thread(load)

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        return self._chat

    def close(self) -> None:
        """End the engine's thread."""
        self._batcher.close()
