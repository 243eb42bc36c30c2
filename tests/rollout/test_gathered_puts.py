"""Tests of `sftrl_ext.rollout.gathered_puts`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sftrl_ext.rollout.gathered_puts import GatheredPuts, Row

Sent = tuple[list[str], str, Sequence[Row] | None, Sequence[Row]]


class Queue:
    """Keeps what is sent; raises where a key is `bad`."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    async def send(
        self, keys: list[str], partition: str, rows: Sequence[Row] | None, tags: Sequence[Row]
    ) -> None:
        await asyncio.sleep(0)
        if "bad" in keys:
            raise ConnectionError("the storage unit is gone")
        self.sent.append((keys, partition, rows, tags))


def played(queue: Queue, *puts: tuple[str, str, Sequence[Row] | None], most: int = 16) -> list[object]:
    """Put at once, a key each; give how each call ended."""

    async def run() -> list[object]:
        gathered = GatheredPuts(queue.send, wait_s=0.001, most=most)
        calls = [gathered.put([key], partition, rows, [{"tag": key}]) for key, partition, rows in puts]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_puts_of_one_moment_are_sent_together_in_their_order() -> None:
    queue = Queue()
    played(queue, ("a", "train", [{"x": 1}]), ("b", "train", [{"x": 2}]))
    assert queue.sent == [(["a", "b"], "train", [{"x": 1}, {"x": 2}], [{"tag": "a"}, {"tag": "b"}])]


def test_partitions_columns_and_tags_alone_are_sent_by_themselves() -> None:
    queue = Queue()
    row = {"x": 1}
    puts = [
        ("a", "train", [row]),
        ("b", "val", [row]),
        ("c", "train", [{**row, "y": 2}]),
        ("d", "train", None),
    ]
    played(queue, *puts)
    assert [(keys, partition, rows) for keys, partition, rows, _ in queue.sent] == [
        ([key], partition, rows) for key, partition, rows in puts
    ]


def test_a_full_gathering_does_not_wait() -> None:
    queue = Queue()
    played(queue, *((str(key), "train", [{"x": key}]) for key in range(5)), most=2)
    assert [keys for keys, *_ in queue.sent] == [["0", "1"], ["2", "3"], ["4"]]


def test_the_last_put_waits_for_no_other() -> None:
    queue = Queue()

    async def run() -> None:
        gathered = GatheredPuts(queue.send, wait_s=3600.0)
        first = asyncio.ensure_future(gathered.put(["a"], "train", None, [{}]))
        await asyncio.sleep(0)
        await asyncio.wait_for(gathered.put(["b"], "train", None, [{}], last=True), 60)
        await first

    asyncio.run(run())
    assert [keys for keys, *_ in queue.sent] == [["a", "b"]]


def test_every_call_of_a_failed_put_raises_and_no_other() -> None:
    queue = Queue()
    ends = played(queue, ("a", "train", None), ("bad", "train", None), ("b", "val", None))
    assert [type(end) for end in ends] == [ConnectionError, ConnectionError, type(None)]
    assert [keys for keys, *_ in queue.sent] == [["b"]]


def test_a_cancelled_call_leaves_the_others() -> None:
    queue = Queue()

    async def run() -> None:
        gathered = GatheredPuts(queue.send, wait_s=0.001)
        calls = [asyncio.ensure_future(gathered.put([key], "train", None, [{}])) for key in "ab"]
        await asyncio.sleep(0)
        calls[0].cancel()
        await calls[1]
        with pytest.raises(asyncio.CancelledError):
            await calls[0]

    asyncio.run(run())
    assert [keys for keys, *_ in queue.sent] == [["a", "b"]]
