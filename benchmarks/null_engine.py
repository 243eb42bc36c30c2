"""Stand-ins around the agent loop: an engine without a model, a queue without a cluster, and two meters."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue.metadata import extract_field_schema
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from transfer_queue.utils.zmq_utils import ZMQMessage, ZMQRequestType
from verl.workers.rollout.replica import TokenOutput

from sftrl_ext.envs.base import Episode

LOGPROB = -0.5
"""Log-probability of every generated token."""


def turn_seed(config_seed: int | None, uid: str, session: int, turn: int) -> int:
    """Seed that the loop ``verifier`` gives to a turn where ``sftrl.rollout.seeded`` is set."""
    return zlib.crc32(f"{config_seed}/{uid}/{session}/{turn}".encode())


class NullEngine:
    """Client of the rollout servers without servers: scripted answers after a lognormal latency.

    Args:
        answers: Seed of a turn (`turn_seed`) to the tokens of its answer.
        median_s: Median of the latency in seconds.
        sigma: Standard deviation of its logarithm.
        seed: Seed of the latencies.
    """

    def __init__(
        self, answers: Mapping[int, Sequence[int]], median_s: float, sigma: float = 0.5, seed: int = 0
    ) -> None:
        self.answers = answers
        self.turns = self.in_flight = self.most_in_flight = 0
        self._median_s, self._sigma = median_s, sigma
        self._random = random.Random(seed)

    def latency(self) -> float:
        """Draw the seconds of one answer."""
        return self._random.lognormvariate(math.log(self._median_s), self._sigma)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: Mapping[str, Any], **media: Any
    ) -> TokenOutput:
        """Answer one turn, cut at ``max_tokens`` as an engine cuts it."""
        self.turns += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.latency())
        self.in_flight -= 1
        ids = list(self.answers[sampling_params["seed"]][: sampling_params["max_tokens"]])
        steps = {"min_global_steps": 1, "max_global_steps": 1}
        return TokenOutput(token_ids=ids, log_probs=[LOGPROB] * len(ids), extra_fields=steps)


def scripted_answers(
    episode: Episode,
    right: Callable[[Episode], str],
    wrong: Sequence[str],
    turns: int,
    rng: random.Random,
) -> list[str]:
    """Play an episode with right and wrong answers at random.

    Args:
        episode: A fresh episode; it is played to its end.
        right: Returns a right answer at the current prompt.
        wrong: Wrong answers to draw from.
        turns: Turns after which every answer is wrong.
        rng: Random stream.

    Returns:
        The answers, in order.
    """
    # The chance of a right answer is drawn per episode, so that all lengths occur.
    skill = rng.random()
    answers: list[str] = []
    while not episode.done:
        correct = len(answers) < turns and rng.random() < skill
        answers.append(right(episode) if correct else rng.choice(wrong))
        episode.submit(answers[-1])
    return answers


class NullQueue:
    """TransferQueue without a cluster: rows are encoded as its client encodes them, and kept here.

    It lacks the two requests to the controller that each put makes, and the socket to the storage unit.
    """

    def __init__(self) -> None:
        self.rows: dict[str, tuple[TensorDict, int]] = {}
        self.tags: dict[str, Any] = {}
        self.bytes = 0

    def init(self) -> None:
        """Connect to nothing."""

    async def async_kv_put(self, key: str, partition_id: str, tag: Any = None, fields: Any = None) -> None:
        """Store the status of a prompt."""
        await asyncio.sleep(0)
        self.tags[key] = tag

    async def async_kv_batch_put(
        self, keys: list[str], partition_id: str, fields: TensorDict | None, tags: list[Any]
    ) -> None:
        """Encode the rows of some episodes and store them; without rows their tags alone."""
        await asyncio.sleep(0)
        self.tags.update(zip(keys, tags, strict=True))
        if fields is None:
            return
        extract_field_schema(fields)
        select = AsyncSimpleStorageManager._select_by_positions
        positions, names = list(range(len(keys))), fields.keys()
        message = ZMQMessage.create(
            request_type=ZMQRequestType.PUT_DATA,
            sender_id="worker",
            receiver_id="storage",
            body={
                "global_indexes": positions,
                # By name: `items` gives tensordict's own stacks, whose encoding is another.
                "data": {name: select(fields[name], positions) for name in names},
                "data_parser": None,
            },
        )
        self.bytes += sum(memoryview(frame).nbytes for frame in message.serialize())
        for index, key in enumerate(keys):
            self.rows[key] = (fields, index)

    def errors(self) -> list[str]:
        """Errors of the episodes that could not be played to their end."""
        fields = [rows[index]["extra_fields"] for rows, index in self.rows.values()]
        return [extra["error"] for extra in fields if "error" in extra]

    def digest(self) -> str:
        """SHA-256 of all rows, in the order of their keys, without times."""
        total = hashlib.sha256()
        for key in sorted(self.rows):
            total.update(key.encode())
            fields, index = self.rows[key]
            for name, value in sorted(fields[index].items()):
                if name != "metrics":
                    total.update(name.encode())
                    _add(total, value)
        return total.hexdigest()[:16]


def _add(total: Any, value: Any) -> None:
    """Add a value to a digest; dictionaries in the order of their keys."""
    value = getattr(value, "data", value) if type(value).__name__ == "NonTensorData" else value
    if isinstance(value, torch.Tensor):
        dense = value.to_padded_tensor(0) if value.is_nested else value
        total.update(f"{dense.dtype}{tuple(dense.shape)}".encode())
        total.update(dense.contiguous().numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value):
            total.update(str(key).encode())
            _add(total, value[key])
    else:
        total.update(repr(value).encode())


class Heartbeat:
    """Task that measures its own lateness in the event loop; nothing is subtracted.

    Args:
        every_s: Seconds between two beats.
    """

    def __init__(self, every_s: float = 0.002) -> None:
        self.every_s = every_s
        self.late_s: list[float] = []
        self.cpu_s: list[float] = []
        """Processor time of the loop's thread between two beats."""

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due, cpu = loop.time() + self.every_s, time.thread_time()
            await asyncio.sleep(self.every_s)
            self.late_s.append(loop.time() - due)
            self.cpu_s.append(time.thread_time() - cpu)

    def report(self) -> dict[str, float]:
        """The longest blocks in milliseconds, by the clock and by processor time of the thread."""
        late = sorted(self.late_s)
        return {
            "longest_ms": round(late[-1] * 1e3, 1),
            "p99_ms": round(late[int(len(late) * 0.99)] * 1e3, 1),
            "over_50_ms": sum(seconds > 0.05 for seconds in late),
            "longest_cpu_ms": round(max(self.cpu_s) * 1e3, 1),
        }


@contextmanager
def beating(heart: Heartbeat) -> Iterator[None]:
    """Run a heartbeat in the event loop."""
    task = asyncio.get_running_loop().create_task(heart.run())
    try:
        yield
    finally:
        task.cancel()


Part = tuple[str, str, str]
"""Label, part of a file's path, and name of a function in it; "" for any function."""


class Sampler:
    """Profile of the main thread by a timer of processor time: every stack counts for one part.

    Args:
        parts: The first whose function is in a stack has the sample; "rest" if none is.
        every_s: Processor time of the process between two samples.
    """

    def __init__(self, parts: Sequence[Part], every_s: float = 0.002) -> None:
        self.parts, self.every_s = parts, every_s
        self.counts: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        """Samples by innermost function."""

    def __enter__(self) -> Sampler:
        self._before = signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, self.every_s, self.every_s)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        codes = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        self.counts[self.part([(code.co_filename, code.co_name) for code in codes])] += 1
        if codes:
            file = "/".join(codes[0].co_filename.split("/")[-2:])
            self.lines[f"{file}:{codes[0].co_firstlineno} {codes[0].co_name}"] += 1

    def part(self, stack: Sequence[tuple[str, str]]) -> str:
        """The part of a stack of file names and functions."""
        for label, path, function in self.parts:
            if any(path in file and function in ("", name) for file, name in stack):
                return label
        return "rest"

    def shares(self) -> dict[str, float]:
        """Share of each part, the largest first."""
        total = max(1, sum(self.counts.values()))
        return {label: round(count / total, 3) for label, count in self.counts.most_common()}
