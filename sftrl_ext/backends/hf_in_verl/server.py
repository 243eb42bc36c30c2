"""Rollout server of ``rollout.name=hf``: a Ray actor around the engine, with the interface verl calls.

Every process that receives a handle of this actor imports this module, so verl and torch are imported only
inside the actor.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from verl.workers.config import RolloutConfig
    from verl.workers.rollout.replica import TokenOutput

    from sftrl_ext.backends.hf.sampling import Sampling

_IGNORED = {"logprobs", "repetition_penalty"}
_SAMPLING = {"temperature", "top_p", "top_k", "stop_token_ids", "seed", "ignore_eos"}


class HFServer:
    """Generates for the agent loops between weight updates from the trainer.

    Args:
        config: ``actor_rollout_ref.rollout``.
        model_path: Model folder: configuration, tokenizer and, until the first update, weights.
        replica_rank: Number of the replica; each has its own random stream.
        device: Where the model is.
    """

    def __init__(
        self, config: RolloutConfig, model_path: str, replica_rank: int, device: str = "cpu"
    ) -> None:
        from verl.utils.torch_dtypes import PrecisionType

        from sftrl_ext.backends.hf.batcher import Batcher
        from sftrl_ext.backends.hf.engine import Engine

        self.config = config
        self.global_steps: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._rejects = False
        self._running = 0
        engine = Engine.from_folder(
            model_path,
            dtype=PrecisionType.to_dtype(config.dtype),
            max_rows=min(config.max_num_seqs, 256),
            seed=config.seed + replica_rank,
            device=device,
        )
        self.batcher = Batcher(engine)
        self.context = min(engine.context, config.max_model_len or engine.context)

    async def ready(self) -> str:
        """Return the node's address, once the model is loaded."""
        import ray

        return ray.util.get_node_ip_address()

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
        **unused: Any,
    ) -> TokenOutput:
        """Continue a prompt: token ids in, token ids and log-probabilities out.

        Args:
            prompt_ids: The whole prompt of this turn.
            sampling_params: vLLM's names; without ``max_tokens`` the response may fill what
                ``prompt_length + response_length`` leaves.
            request_id: Unused, every turn is a request of its own.
            image_data: The images that the prompt's placeholder tokens stand for.
            video_data: Not supported.
            unused: Options of other engines.

        Raises:
            SftrlError: for videos, an unknown sampling parameter or a prompt as long as the context.
        """
        from verl.utils import normalize_token_ids
        from verl.workers.rollout.replica import TokenOutput

        from sftrl_ext.backends.hf.engine import Request

        if video_data:
            raise SftrlError("rollout.name=hf generates from text and images only; got a video.")
        prompt = normalize_token_ids(prompt_ids)
        request = Request(prompt, self._sampling(dict(sampling_params), len(prompt)), image_data or ())
        # A loop, because weights may be updated again before this request gets its turn.
        while not self._open.is_set():
            if self._rejects:
                return self._aborted()
            await self._open.wait()
        self._running += 1
        try:
            result = await self.batcher.generate(request)
        finally:
            self._running -= 1
        aborted = result.finish_reason == "aborted"
        return TokenOutput(
            token_ids=result.token_ids,
            log_probs=result.log_probs,
            stop_reason="aborted" if aborted else "completed",
            extra_fields={"global_steps": self.global_steps},
        )

    async def update_weights_from_ipc(self, zmq_handle: str) -> None:
        """Receive one full set of weights through verl's shared-memory buckets."""
        await asyncio.to_thread(self._receive, zmq_handle)

    async def set_global_steps(self, global_steps: int) -> None:
        """Set the trainer step of the current weights."""
        self.global_steps = global_steps

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """End the requests in flight with their tokens so far, and admit none until `resume_generation`.

        Args:
            reject_request: Answer later requests at once, as aborted, so that their client asks another
                server; otherwise they wait.
        """
        self._rejects = reject_request
        self._open.clear()
        aborted = await asyncio.to_thread(self.batcher.abort)
        while self._running:  # a request that the batcher's thread had just taken from its inbox
            await asyncio.sleep(0.005)
            aborted += await asyncio.to_thread(self.batcher.abort)
        return {"aborted_count": aborted}

    async def resume_generation(self) -> None:
        """Admit requests again after `abort_all_requests`."""
        self._rejects = False
        self._open.set()

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Do nothing: nothing was released."""

    async def sleep(self) -> None:
        """Do nothing: the weights stay, the cache is small."""

    async def clear_kv_cache(self) -> None:
        """Do nothing: a weight update clears the cache."""

    release_kv_cache = resume_kv_cache = clear_kv_cache

    async def start_profile(self, **unused: Any) -> None:
        """Profiling covers the trainer only."""

    async def stop_profile(self) -> None:
        """See :meth:`start_profile`."""

    def _aborted(self) -> TokenOutput:
        from verl.workers.rollout.replica import TokenOutput

        versions = {"global_steps": self.global_steps}
        return TokenOutput(token_ids=[], log_probs=[], stop_reason="aborted", extra_fields=versions)

    def _sampling(self, params: dict[str, Any], prompt_length: int) -> Sampling:
        """Translate verl's sampling parameters."""
        from sftrl_ext.backends.hf.sampling import Sampling

        remaining = self.context - prompt_length
        if remaining < 1:
            raise SftrlError(
                f"a prompt of {prompt_length} tokens leaves no room in a context of {self.context}."
            )
        # As verl's vLLM server: later turns share the budget of prompt and response.
        default = min(
            self.config.response_length,
            self.config.prompt_length + self.config.response_length - prompt_length,
        )
        max_tokens = params.pop("max_tokens", params.pop("max_new_tokens", default))
        for name in params:
            if name not in _SAMPLING | _IGNORED:
                raise unknown_name("sampling parameter", name, _SAMPLING | _IGNORED | {"max_tokens"})
        if params.get("repetition_penalty", 1.0) != 1.0:
            raise SftrlError("repetition_penalty: rollout.name=hf supports 1.0 only.")
        options = {name: params[name] for name in _SAMPLING & params.keys()}
        options["stop_token_ids"] = tuple(options.get("stop_token_ids") or ())
        options.setdefault("ignore_eos", self.config.ignore_eos)
        return Sampling(max_tokens=max(1, min(max_tokens, remaining)), **options)

    def _receive(self, zmq_handle: str) -> None:
        import torch

        from sftrl_ext.backends.hf_in_verl.weight_buckets import BucketedWeightReceiver

        receiver = BucketedWeightReceiver(zmq_handle, device=torch.device("cpu"), use_shm=True)
        names: set[str] = set()
        with self.batcher.stopped() as engine:
            # Weights arrive in buckets; only all of them together are a complete model.
            receiver.receive_weights(lambda weights, is_last: names.update(engine.copy_weights(weights)))
            engine.require_complete(names)
