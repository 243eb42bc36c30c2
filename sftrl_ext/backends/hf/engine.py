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
from sftrl_ext.backends.hf.sampling import BatchSampler, Sampling
from sftrl_ext.backends.hf.vision import Seen, open_eyes
from sftrl_ext.errors import SftrlError
from sftrl_ext.hf_folder import eos_token_ids, load_model, load_processor, load_tokenizer


@dataclass
class Generation:
    """A response."""

    token_ids: list[int] = field(default_factory=list)
    """What was sampled, the stop token included."""
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
    """What the prompt's placeholder tokens stand for, in order."""
    result: Generation = field(default_factory=Generation)
    """Filled in by the engine."""


@dataclass
class _Job:
    """A request that waits or is being read."""

    request: Request
    keys: Sequence[int]
    """What the cache knows the prompt by: its tokens, if it shows no image."""
    seen: Seen | None


@dataclass
class _Row:
    """A request in flight: slot i holds row i."""

    request: Request
    keys: Sequence[int]
    seen: Seen | None
    stop: frozenset[int]
    limit: int
    length: int
    random: np.random.Generator | None


class Engine:
    """A model and the requests it is answering.

    Not thread-safe: one thread at a time may call it.

    Args:
        model: A causal language model; the engine works on its device.
        eos_token_ids: Tokens that end a response.
        vocab_size: Number of tokens the tokenizer knows. Tokens beyond it, which a padded embedding has, are
            never sampled.
        banned_token_ids: Further tokens never to sample, such as image placeholders.
        max_rows: Requests decoded at the same time; more wait.
        prefill_tokens: Prompt tokens, padding included, read in one forward pass.
        seed: Seed of the requests that bring none.
        processor: The processor of a model that sees images; without it there can be none in a request.

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
        self.eyes = None if processor is None else open_eyes(model, processor)
        config = model.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        unsaid = self.eyes.banned if self.eyes else []
        # A model may read more tokens than it can say.
        self.banned = _banned(
            self.vocab_size, int(config.vocab_size), vocab_size, [*banned_token_ids, *unsaid]
        ).to(self.device)
        """Which of the tokens that the model can say are never sampled. Shape (vocabulary,)."""
        self._random = np.random.default_rng(seed)
        with self.on_device():
            self._cache = _new_cache(config, model.dtype, max_rows)
        self._waiting: deque[_Job] = deque()
        self._rows: list[_Row] = []
        self._sampler: BatchSampler | None = None
        self.prefill_count = 0
        """Prompt tokens that went through the model; those that a slot still held are not counted."""
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
        parts = ATTENTION if processor is None else {"text_config": ATTENTION, "vision_config": "sdpa"}
        model = load_model(folder, dtype, parts).to(device)
        options.setdefault("eos_token_ids", eos_token_ids(folder, tokenizer))
        options.setdefault("vocab_size", len(tokenizer))
        options.setdefault("processor", processor)
        return cls(model, **options)

    @property
    def busy(self) -> bool:
        """Whether any request is in flight or waiting."""
        return bool(self._rows or self._waiting)

    def generate(self, requests: Iterable[Request]) -> list[Generation]:
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
        if request.images and self.eyes is None:
            raise SftrlError(
                f"{self.model.config.model_type}: this model sees no images, but a prompt has some."
            )
        with self.on_device():
            seen = self.eyes.look(prompt, request.images) if self.eyes else None
        request.result = Generation()
        self._waiting.append(_Job(request, seen.keys if seen else prompt, seen))

    def abort(self) -> list[Request]:
        """End every request with what it has, as ``aborted``; return them."""
        ended = [row.request for row in self._rows] + [job.request for job in self._waiting]
        for request in ended:
            request.result.finish_reason = "aborted"
        self._rows, self._sampler = [], None
        self._waiting.clear()
        return ended

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Admit waiting requests into free slots, decode one token for every row; return what ended."""
        with self.on_device():
            ended = self._admit()
            if self._rows:
                ended += self._decode()
        return ended

    @torch.inference_mode()
    def read_texts(
        self, texts: Sequence[Sequence[int]], images: Sequence[Sequence[Image]], keep: Tensor
    ) -> Tensor:
        """Logits after some tokens of whole texts, read in one pass that leaves nothing in the slots.

        Args:
            texts: The tokens of each row.
            images: What each row's placeholder tokens stand for, in order.
            keep: Indices of the tokens whose logits are wanted, the same for all rows; those of a row's
                padding mean nothing. Shape (kept,).

        Returns:
            Shape (rows, kept, vocabulary), in the model's type.
        """
        with self.on_device():
            width = max(map(len, texts))
            # Padding on the right: nothing before it attends to it.
            tokens = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in texts])
            if self.eyes is None:
                positions = torch.arange(width).expand(len(texts), -1)
                logits: Tensor = self.model(
                    input_ids=tokens, position_ids=positions, logits_to_keep=keep, use_cache=False
                ).logits
                return logits
            seen = [self.eyes.look(ids, shown) for ids, shown in zip(texts, images, strict=True)]
            self.eyes.encode(seen)
            starts = torch.zeros(len(texts), dtype=torch.long)
            states = self.eyes.read(tokens, starts, seen, attention_mask=None, use_cache=False)
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
        self._cache.forget()
        if self.eyes:
            self.eyes.forget()
        own = self.model.state_dict()
        names = set()
        for name, tensor in weights:
            if name not in own or own[name].shape != tensor.shape:
                found = f"shape {tuple(own[name].shape)}" if name in own else "no weight of that name"
                raise SftrlError(f"weight {name!r} of shape {tuple(tensor.shape)}: the model has {found}.")
            own[name].copy_(tensor)
            names.add(name)
        return names

    def require_complete(self, names: set[str]) -> None:
        """Check that the names cover every weight of the model; tied weights need only one name.

        Raises:
            SftrlError: naming what is missing.
        """
        own = self.model.state_dict()
        covered = {own[name].data_ptr() for name in names}
        missing = [name for name, tensor in own.items() if tensor.data_ptr() not in covered]
        if missing:
            raise SftrlError(f"{len(missing)} weights were not sent: {', '.join(missing[:5])}.")

    def on_device(self) -> AbstractContextManager[Any]:
        """Make new tensors where the model is."""
        return nullcontext() if self.device.type == "cpu" else self.device

    def _admit(self) -> list[Request]:
        """Give slots to waiting requests and read their prompts, as far as the slots do not hold them."""
        first = len(self._rows)
        count = min(self.max_rows - first, len(self._waiting))
        found: dict[int, tuple[_Job, int]] = {}
        # Long prompts choose first: they continue episodes that the slots still hold.
        chosen = [self._waiting.popleft() for _ in range(count)]
        for job in sorted(chosen, key=lambda job: -len(job.keys)):
            free = [slot for slot in range(first, self._cache.slots) if slot not in found]
            slot, common = self._cache.claim(job.keys, free)
            found[slot] = (job, common)
        # Prompts with about as much left to read go through the model together, new ones apart.
        slots = sorted(found, key=lambda slot: (found[slot][1] > 0, _left(*found[slot])))
        self._line_up(slots, first)
        rows = [found[slot] for slot in slots]
        if rows:
            self._rows += [self._row(job) for job, _ in rows]
            self._sampler = None
        if self.eyes:
            self.eyes.encode([job.seen for job, common in rows if job.seen and job.seen.shows(common)])
        ended: list[int] = []
        while rows:
            count = 1
            while (
                count < len(rows)
                and (rows[count][1] > 0) == (rows[0][1] > 0)
                and (count + 1) * _left(*rows[count]) <= self.prefill_tokens
            ):
                count += 1
            ended += self._prefill(rows[:count], first)
            first += count
            del rows[:count]
        return self._free(ended)

    def _line_up(self, slots: list[int], first: int) -> None:
        """Bring the contents of the given free slots to the consecutive slots from ``first`` on, in order."""
        place = {slot: i for i, slot in enumerate(slots)}
        where = list(slots)
        for i, target in enumerate(range(first, first + len(slots))):
            source = where[i]
            self._cache.swap(source, target)
            if target in place and source != target:
                where[place[target]] = source
                place[source] = place[target]

    def _prefill(self, rows: list[tuple[_Job, int]], first: int) -> list[int]:
        """Read the rest of some prompts into the slots from ``first`` on; return the rows that end."""
        left = torch.tensor([_left(*row) for row in rows])
        starts = torch.tensor([common for _, common in rows])
        width = int(left.max())
        # Padding on the right: nothing before it attends to it, and its place is written again.
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        for i, (job, common) in enumerate(rows):
            tokens[i, : left[i]] = torch.tensor(job.request.prompt_ids[common:])
        wanted, which = torch.unique(left - 1, return_inverse=True)
        logits = self._forward(tokens, starts, first, [job.seen for job, _ in rows], wanted)
        for slot, (job, _) in enumerate(rows, start=first):
            self._cache.hold(slot, job.keys)
        self.prefill_count += int(left.sum())
        return self._accept(logits[torch.arange(len(rows)), which], first, len(rows))

    def _decode(self) -> list[Request]:
        """Feed every row its last token and sample the next."""
        tokens = torch.tensor([[row.request.result.token_ids[-1]] for row in self._rows])
        starts = torch.tensor([row.length for row in self._rows])
        logits = self._forward(tokens, starts, 0, [row.seen for row in self._rows])[:, 0]
        for row in self._rows:
            row.length += 1
        return self._free(self._accept(logits, 0, len(self._rows)))

    def _forward(
        self,
        tokens: Tensor,
        starts: Tensor,
        first: int,
        seen: Sequence[Seen | None],
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits after the new tokens of consecutive slots.

        Args:
            tokens: Shape (rows, tokens).
            starts: Index of each row's first new token in its sequence. Shape (rows,).
            first: The first slot.
            seen: The rows' prompts, for a model that sees images.
            keep: Tokens of prompts whose logits are wanted; without it every row goes on by one token.
        """
        mask = self._cache.begin(first, starts, tokens.shape[1])
        common = {"attention_mask": mask, "past_key_values": self._cache, "use_cache": True}
        if self.eyes is None:
            if keep is not None:
                common["logits_to_keep"] = keep
            positions = starts[:, None] + torch.arange(tokens.shape[1])
            logits: Tensor = self.model(input_ids=tokens, position_ids=positions, **common).logits
            return logits
        if keep is None:
            return self.model.lm_head(self.eyes.go_on(tokens, starts, seen, **common))
        return self.model.lm_head(self.eyes.read(tokens, starts, seen, **common)[:, keep])

    def _row(self, job: _Job) -> _Row:
        sampling, length = job.request.sampling, len(job.keys)
        return _Row(
            request=job.request,
            keys=job.keys,
            seen=job.seen,
            stop=frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self.eos),
            limit=min(sampling.max_tokens, self.context - length),
            length=length,
            random=None if sampling.seed is None else np.random.default_rng(sampling.seed),
        )

    def _accept(self, logits: Tensor, first: int, count: int) -> list[int]:
        """Sample a token for ``count`` rows from ``first`` on; return the rows that it ends."""
        rows = self._rows[first : first + count]
        if count < len(self._rows):
            sampler = BatchSampler([row.request.sampling for row in rows], self.banned)
        elif self._sampler is None:
            sampler = self._sampler = BatchSampler([row.request.sampling for row in rows], self.banned)
        else:
            sampler = self._sampler
        uniform = self._random.random(count)
        for i, row in enumerate(rows):
            if row.random is not None:
                uniform[i] = row.random.random()
        tokens, log_probs = sampler(logits, uniform)
        ended = []
        for i, row, token, log_prob in zip(
            range(first, first + count), rows, tokens.tolist(), log_probs.tolist(), strict=True
        ):
            result = row.request.result
            result.token_ids.append(token)
            result.log_probs.append(log_prob)
            if token in row.stop:
                result.finish_reason = "stop"
            elif len(result.token_ids) >= row.limit:
                result.finish_reason = "length"
            else:
                continue
            ended.append(i)
        self.generated_count += count
        return ended

    def _free(self, ended: list[int]) -> list[Request]:
        """Take out rows that ended; the last rows move up, and the slots remember what ended."""
        requests = []
        for slot in reversed(ended):
            row, last = self._rows[slot], self._rows[-1]
            self._cache.swap(slot, len(self._rows) - 1, max(row.length, last.length))
            self._rows[slot] = last
            self._rows.pop()
            self._sampler = None
            request = row.request
            # The last token was sampled but never fed to the model.
            self._cache.hold(len(self._rows), [*row.keys, *request.result.token_ids[:-1]])
            requests.append(request)
        return requests


def _left(job: _Job, common: int) -> int:
    """Tokens of the prompt that are still to be read."""
    return len(job.keys) - common


def _new_cache(config: Any, dtype: torch.dtype, max_rows: int) -> SlotCache:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise SftrlError(f"{config.model_type}: rollout.name=hf needs full attention in every layer.")
    heads = config.num_attention_heads
    across = set(getattr(config, "cross_attention_layers", None) or ())
    return SlotCache(
        [layer for layer in range(config.num_hidden_layers) if layer not in across],
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        dtype=dtype,
        max_slots=2 * max_rows,
    )


def _banned(read: int, said: int, known: int, ids: Iterable[int]) -> Tensor:
    """Which of the tokens that a model can say it may not."""
    if known > read:
        raise SftrlError(f"the tokenizer has {known} tokens, the model only {read}: not of one kind.")
    mask = torch.zeros(said, dtype=torch.bool)
    mask[known:] = True
    mask[[token for token in ids if token < said]] = True
    return mask
