"""Generation with a Hugging Face language model by continuous batching, from text and images.

The engine works in any process, without ray or verl. One step decodes one token for every row in flight; a
row that ends leaves at once and its slot is given to a waiting request. ``transformers``' own ``generate``
keeps a batch together until its last row ends, pads on the left, and copies the cache at every token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.backends.hf.attention import ATTENTION
from sftrl_ext.backends.hf.kv_slots import SlotCache
from sftrl_ext.backends.hf.sampling import BatchSampler, Constraint, Sampling
from sftrl_ext.backends.hf.vision import VisionInputs, make_adapter
from sftrl_ext.backends.sampled import OnTokens, SampledToken
from sftrl_ext.errors import SftrlError
from sftrl_ext.hf_folder import eos_token_ids, load_model, load_processor, load_tokenizer


@dataclass
class Response:
    """Response to a request."""

    token_ids: list[int] = field(default_factory=list)
    """Sampled tokens, the stop token included."""
    log_probs: list[float] = field(default_factory=list)
    """Log-probability of each token under the distribution it was sampled from."""
    finish_reason: str = ""
    """``stop`` (a stop token), ``length`` (``max_tokens`` or the model's context) or ``aborted``."""


@dataclass
class Request:
    """A prompt to continue."""

    prompt_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    images: Sequence[Image] = ()
    """Images of the prompt's placeholder tokens, in order."""
    constraint: Constraint | None = None
    """What the response may say; used up by it."""
    on_tokens: OnTokens | None = None
    """Called with each token as it is sampled, in the thread that steps the engine."""
    result: Response = field(default_factory=Response)
    """Filled in by the engine."""


@dataclass
class _Job:
    """A request that waits or is being prefilled."""

    request: Request
    keys: Sequence[int]
    """Cache keys of the prompt: its tokens, if it shows no image."""
    vision: VisionInputs | None


@dataclass
class _Row:
    """A request in flight: row i is in slot i."""

    request: Request
    keys: Sequence[int]
    vision: VisionInputs | None
    stop: frozenset[int]
    limit: int
    length: int
    random: np.random.Generator | None


class Engine:
    """Continuous batching over one model.

    Not thread-safe: one thread at a time may call it.

    Args:
        model: A causal language model; the engine works on its device.
        eos_token_ids: Tokens that end a response.
        vocab_size: Number of tokens the tokenizer knows. Tokens beyond it, which a padded embedding has, are
            never sampled.
        banned_token_ids: Further tokens never to sample, such as image placeholders.
        max_rows: Most requests decoded at the same time; more wait.
        prefill_tokens: Prompt tokens, padding included, read in one forward pass.
        seed: Seed of the requests without one.
        processor: Processor of a vision-language model; None allows no images in requests.

    Raises:
        SftrlError: if the tokenizer knows more tokens than the model.
    """

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Iterable[int],
        vocab_size: int,
        banned_token_ids: Iterable[int] = (),
        max_rows: int = 256,
        prefill_tokens: int = 2048,
        seed: int = 0,
        processor: Any = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device = torch.device(model.device)
        self.eos = frozenset(eos_token_ids)
        self.max_rows, self.prefill_tokens = max_rows, prefill_tokens
        self.vision = None if processor is None else make_adapter(model, processor)
        config = model.config.get_text_config()
        # A model without a limit in its configuration gets one that no prompt reaches.
        self.context = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        image_tokens = self.vision.banned if self.vision else []
        # A model may read more tokens than it has logits for.
        self.banned = _banned_mask(
            self.vocab_size, int(config.vocab_size), vocab_size, [*banned_token_ids, *image_tokens]
        ).to(self.device)
        """Mask over the logits of tokens that are never sampled. Shape (vocabulary,)."""
        self._random = np.random.default_rng(seed)
        with self.on_device():
            self._cache = _new_cache(config, model.dtype, max_rows)
        self._waiting: deque[_Job] = deque()
        self._rows: list[_Row] = []
        self._sampler: BatchSampler | None = None
        self.prefill_count = 0
        """Prompt tokens that went through the model; reused prefixes are not counted."""
        self.generated_count = 0
        """Tokens sampled."""

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        **options: Any,
    ) -> Engine:
        """Load a Hugging Face folder (weights, configuration, tokenizer, image processor if it has one).

        Args:
            folder: Local folder.
            dtype: Type of the weights and of the arithmetic.
            device: Where the weights are and the arithmetic is done.
            options: Further arguments of the class.

        Raises:
            SftrlError: if there is no folder, or no tokenizer in it.
        """
        tokenizer, processor = load_tokenizer(folder), load_processor(folder)
        # The vision encoder has no KV cache, so torch's own attention serves it.
        parts = ATTENTION if processor is None else {"text_config": ATTENTION, "vision_config": "sdpa"}
        model = load_model(folder, dtype, parts).to(device)
        options.setdefault("eos_token_ids", eos_token_ids(folder, tokenizer))
        options.setdefault("vocab_size", len(tokenizer))
        options.setdefault("processor", processor)
        return cls(model, **options)

    @property
    def busy(self) -> bool:
        """True while any request is in flight or waiting."""
        return bool(self._rows or self._waiting)

    def generate(self, requests: Iterable[Request]) -> list[Response]:
        """Answer requests and return the responses in their order."""
        requests = list(requests)
        for request in requests:
            self.submit(request)
        while self.busy:
            self.step()
        return [request.result for request in requests]

    def submit(self, request: Request) -> None:
        """Put a request in the queue; :meth:`step` answers it.

        Raises:
            SftrlError: if the prompt is empty, holds an unknown token, leaves no room in the context, or does
                not fit its images.
        """
        prompt = request.prompt_ids
        if not 0 < len(prompt) < self.context:
            raise SftrlError(
                f"a prompt of {len(prompt)} tokens: expected 1 to {self.context - 1}; "
                f"the model's context length is {self.context}."
            )
        if not (min(prompt) >= 0 and max(prompt) < self.vocab_size):
            raise SftrlError(
                f"prompt tokens from {min(prompt)} to {max(prompt)}: the model knows "
                f"0 to {self.vocab_size - 1}."
            )
        if request.images and self.vision is None:
            raise SftrlError(
                f"{self.model.config.model_type}: this model sees no images, but a prompt has some."
            )
        # Images are processed at once, encoded only when the prompt is admitted: its prefix may be cached.
        with self.on_device():
            vision = self.vision.prepare(prompt, request.images) if self.vision else None
        request.result = Response()
        self._waiting.append(_Job(request, vision.keys if vision else prompt, vision))

    def abort(self) -> list[Request]:
        """End every request with what it has, as ``aborted``; return them."""
        ended = [row.request for row in self._rows] + [job.request for job in self._waiting]
        for request in ended:
            request.result.finish_reason = "aborted"
        self._rows, self._sampler = [], None
        self._waiting.clear()
        return ended

    @torch.inference_mode()
    def cancel(self, request: Request) -> None:
        """End one request as ``aborted`` with the tokens it has; its slot is free for another."""
        self._waiting = deque(job for job in self._waiting if job.request is not request)
        with self.on_device():
            self._release([slot for slot, row in enumerate(self._rows) if row.request is request])
        request.result.finish_reason = "aborted"

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Admit waiting requests into free slots, decode one token for every row; return what ended."""
        with self.on_device():
            ended = self._admit()
            if self._rows:
                ended += self._decode()
        return ended

    @torch.inference_mode()
    def text_logits(
        self, texts: Sequence[Sequence[int]], images: Sequence[Sequence[Image]], keep: Tensor
    ) -> Tensor:
        """Logits after some tokens of full texts, by one pass that leaves the KV cache alone.

        Args:
            texts: Tokens of each row.
            images: Images of each row's placeholder tokens, in order.
            keep: Indices of the tokens whose logits are returned, the same for all rows; those of a row's
                padding mean nothing. Shape (kept,).

        Returns:
            Shape (rows, kept, vocabulary), in the model's type.
        """
        with self.on_device():
            width = max(map(len, texts))
            # Padding on the right: no token before it attends to it.
            tokens = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in texts])
            if self.vision is None:
                positions = torch.arange(width).expand(len(texts), -1)
                logits: Tensor = self.model(
                    input_ids=tokens, position_ids=positions, logits_to_keep=keep, use_cache=False
                ).logits
                return logits
            prompts = [self.vision.prepare(ids, shown) for ids, shown in zip(texts, images, strict=True)]
            self.vision.encode(prompts)
            starts = torch.zeros(len(texts), dtype=torch.long)
            states = self.vision.prefill(tokens, starts, prompts, attention_mask=None, use_cache=False)
            return self.model.lm_head(states[:, keep])

    def load_weights(self, source: str | Path | Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights, by those of a folder or by (name, tensor) pairs as in ``state_dict``.

        Raises:
            SftrlError: if a request is in flight, a name or shape is unknown, or a weight is missing.
        """
        if isinstance(source, (str, Path)):
            weights = load_model(source, self.model.dtype).state_dict().items()
        else:
            weights = source
        self.require_complete(self.copy_weights(weights))

    @torch.no_grad()
    def copy_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Copy some weights into the model and return their names; see :meth:`load_weights`."""
        if self.busy:
            raise SftrlError("the weights cannot change while requests are in flight.")
        self._cache.clear()
        if self.vision:
            self.vision.clear()
        parameters = self.model.state_dict()
        names = set()
        for name, tensor in weights:
            if name not in parameters or parameters[name].shape != tensor.shape:
                expected = (
                    f"shape {tuple(parameters[name].shape)}"
                    if name in parameters
                    else "no weight of that name"
                )
                raise SftrlError(f"weight {name!r} of shape {tuple(tensor.shape)}: the model has {expected}.")
            parameters[name].copy_(tensor)
            names.add(name)
        return names

    def require_complete(self, names: set[str]) -> None:
        """Check that the names cover every weight of the model; tied weights need only one name.

        Raises:
            SftrlError: naming what is missing.
        """
        parameters = self.model.state_dict()
        # Tied weights have one storage under several names.
        covered = {parameters[name].data_ptr() for name in names}
        missing = [name for name, tensor in parameters.items() if tensor.data_ptr() not in covered]
        if missing:
            raise SftrlError(f"{len(missing)} weights were not sent: {', '.join(missing[:5])}.")

    def on_device(self) -> AbstractContextManager[Any]:
        """Make new tensors where the model is."""
        return nullcontext() if self.device.type == "cpu" else self.device

    def _admit(self) -> list[Request]:
        """Give slots to waiting requests and prefill what the slots do not hold of their prompts."""
        first = len(self._rows)
        count = min(self.max_rows - first, len(self._waiting))
        claimed: dict[int, tuple[_Job, int]] = {}
        # Long prompts claim first: they continue episodes whose earlier turns are still cached.
        admitted = [self._waiting.popleft() for _ in range(count)]
        for job in sorted(admitted, key=lambda job: -len(job.keys)):
            free = [slot for slot in range(first, self._cache.slots) if slot not in claimed]
            slot, cached = self._cache.claim(job.keys, free)
            claimed[slot] = (job, cached)
        # Batches of about equal remaining length; rows without a cached prefix apart, as they need no mask.
        slots = sorted(claimed, key=lambda slot: (claimed[slot][1] > 0, _remaining(*claimed[slot])))
        self._make_consecutive(slots, first)
        rows = [claimed[slot] for slot in slots]
        if rows:
            self._rows += [self._row(job) for job, _ in rows]
            self._sampler = None
        if self.vision:
            self.vision.encode(
                [job.vision for job, cached in rows if job.vision and job.vision.needs_images(cached)]
            )
        ended: list[int] = []
        while rows:
            count = 1
            while (
                count < len(rows)
                and (rows[count][1] > 0) == (rows[0][1] > 0)
                and (count + 1) * _remaining(*rows[count]) <= self.prefill_tokens
            ):
                count += 1
            ended += self._prefill(rows[:count], first)
            first += count
            del rows[:count]
        return self._release(ended)

    def _make_consecutive(self, slots: list[int], first: int) -> None:
        """Move the contents of the given free slots to consecutive slots from ``first`` on, in order."""
        index = {slot: i for i, slot in enumerate(slots)}
        current = list(slots)
        for i, target in enumerate(range(first, first + len(slots))):
            source = current[i]
            self._cache.swap(source, target)
            # The swap displaced the contents of the target, which may be another of the slots.
            if target in index and source != target:
                current[index[target]] = source
                index[source] = index[target]

    def _prefill(self, rows: list[tuple[_Job, int]], first: int) -> list[int]:
        """Prefill the rest of some prompts into the slots from ``first`` on; return the rows that end."""
        remaining = torch.tensor([_remaining(*row) for row in rows])
        starts = torch.tensor([cached for _, cached in rows])
        width = int(remaining.max())
        # Padding on the right: no token before it attends to it, and the next token overwrites it.
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        for i, (job, cached) in enumerate(rows):
            tokens[i, : remaining[i]] = torch.tensor(job.request.prompt_ids[cached:])
        # Logits only at the rows' last tokens: each distinct index once, and every row's entry among them.
        keep, entries = torch.unique(remaining - 1, return_inverse=True)
        logits = self._forward(tokens, starts, first, [job.vision for job, _ in rows], keep)
        for slot, (job, _) in enumerate(rows, start=first):
            self._cache.set_keys(slot, job.keys)
        self.prefill_count += int(remaining.sum())
        return self._accept(logits[torch.arange(len(rows)), entries], first, len(rows))

    def _decode(self) -> list[Request]:
        """Feed every row its last token and sample the next."""
        tokens = torch.tensor([[row.request.result.token_ids[-1]] for row in self._rows])
        starts = torch.tensor([row.length for row in self._rows])
        logits = self._forward(tokens, starts, 0, [row.vision for row in self._rows])[:, 0]
        for row in self._rows:
            row.length += 1
        return self._release(self._accept(logits, 0, len(self._rows)))

    def _forward(
        self,
        tokens: Tensor,
        starts: Tensor,
        first: int,
        prompts: Sequence[VisionInputs | None],
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits after the new tokens of consecutive slots.

        Args:
            tokens: Shape (rows, tokens).
            starts: Index of each row's first new token in its sequence. Shape (rows,).
            first: The first slot.
            prompts: The rows' prompts, for a vision-language model.
            keep: Prompt tokens whose logits are returned; without it every row advances by one token.
        """
        mask = self._cache.begin(first, starts, tokens.shape[1])
        common = {"attention_mask": mask, "past_key_values": self._cache, "use_cache": True}
        if self.vision is None:
            if keep is not None:
                common["logits_to_keep"] = keep
            positions = starts[:, None] + torch.arange(tokens.shape[1])
            logits: Tensor = self.model(input_ids=tokens, position_ids=positions, **common).logits
            return logits
        if keep is None:
            return self.model.lm_head(self.vision.decode(tokens, starts, prompts, **common))
        return self.model.lm_head(self.vision.prefill(tokens, starts, prompts, **common)[:, keep])

    def _row(self, job: _Job) -> _Row:
        sampling, length = job.request.sampling, len(job.keys)
        return _Row(
            request=job.request,
            keys=job.keys,
            vision=job.vision,
            stop=frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self.eos),
            limit=min(sampling.max_tokens, self.context - length),
            length=length,
            random=None if sampling.seed is None else np.random.default_rng(sampling.seed),
        )

    def _accept(self, logits: Tensor, first: int, count: int) -> list[int]:
        """Sample a token for ``count`` rows from ``first`` on; return the rows that it ends."""
        # After a prefill only the new rows are sampled; the sampler of all rows is kept for decoding.
        rows = self._rows[first : first + count]
        if count < len(self._rows):
            sampler = self._new_sampler(rows)
        elif self._sampler is None:
            sampler = self._sampler = self._new_sampler(rows)
        else:
            sampler = self._sampler
        # One number per row in any case, so that unseeded rows do not depend on which others have a seed.
        uniform = self._random.random(count)
        for i, row in enumerate(rows):
            if row.random is not None:
                uniform[i] = row.random.random()
        distribution = sampler.distribution(logits)
        tokens, log_probs = sampler.sample(distribution, uniform)
        most_probable = sampler.most_probable(distribution)
        ended = []
        for i, (row, token, log_prob) in enumerate(
            zip(rows, tokens.tolist(), log_probs.tolist(), strict=True)
        ):
            request, result = row.request, row.request.result
            result.token_ids.append(token)
            result.log_probs.append(log_prob)
            if request.constraint is not None:
                request.constraint.accept(token)
            if request.on_tokens is not None:
                request.on_tokens([SampledToken(token, log_prob, most_probable.get(i, ()))])
            if token in row.stop:
                result.finish_reason = "stop"
            elif len(result.token_ids) >= row.limit:
                result.finish_reason = "length"
            else:
                continue
            ended.append(first + i)
        self.generated_count += count
        return ended

    def _new_sampler(self, rows: Sequence[_Row]) -> BatchSampler:
        requests = [row.request for row in rows]
        return BatchSampler(
            [request.sampling for request in requests],
            self.banned,
            [request.result.token_ids for request in requests],
            [request.constraint for request in requests],
        )

    def _release(self, ended: list[int]) -> list[Request]:
        """Remove rows that ended; the last rows move up, and the freed slots keep their prefixes."""
        requests = []
        for slot in reversed(ended):
            row, last = self._rows[slot], self._rows[-1]
            self._cache.swap(slot, len(self._rows) - 1, max(row.length, last.length))
            self._rows[slot] = last
            self._rows.pop()
            self._sampler = None
            request = row.request
            # The last token was sampled but never fed to the model, so the cache does not hold it.
            self._cache.set_keys(len(self._rows), [*row.keys, *request.result.token_ids[:-1]])
            requests.append(request)
        return requests


def _remaining(job: _Job, cached: int) -> int:
    """Prompt tokens that the cache does not hold."""
    return len(job.keys) - cached


def _new_cache(config: Any, dtype: torch.dtype, max_rows: int) -> SlotCache:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise SftrlError(f"{config.model_type}: rollout.name=hf needs full attention in every layer.")
    heads = config.num_attention_heads
    # Keys and values of cross-attention layers are those of images; the vision adapter holds them.
    cross_attention = set(getattr(config, "cross_attention_layers", None) or ())
    return SlotCache(
        [layer for layer in range(config.num_hidden_layers) if layer not in cross_attention],
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        dtype=dtype,
        max_slots=2 * max_rows,
    )


def _banned_mask(inputs: int, outputs: int, tokenizer_size: int, ids: Iterable[int]) -> Tensor:
    """Mask over a model's logits: the given tokens, and those of a padded embedding that are no tokens."""
    if tokenizer_size > inputs:
        raise SftrlError(
            f"the tokenizer has {tokenizer_size} tokens, the model only {inputs}: not of one kind."
        )
    mask = torch.zeros(outputs, dtype=torch.bool)
    mask[tokenizer_size:] = True
    mask[[token for token in ids if token < outputs]] = True
    return mask
