"""Puts of episodes that end at about the same time, sent to TransferQueue as one.

A put costs its worker, the queue's controller and a storage unit several messages, whatever it holds: put one
by one, the rows of an update take about as long as all its turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

Row = dict[str, Any]
Send = Callable[[list[str], str, Sequence[Row] | None, Sequence[Row]], Awaitable[None]]
"""Send keys, partition, rows (None: tags alone) and tags."""


@dataclass
class _Gathering:
    """Rows and tags that wait for the next put of their kind."""

    done: asyncio.Future[None]
    keys: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    tags: list[Row] = field(default_factory=list)


class GatheredPuts:
    """Gathers puts for a moment and sends those with the same partition and columns together.

    Args:
        send: Sends keys, partition, rows (None: tags alone) and tags.
        wait_s: Seconds that the first put of a gathering waits for others.
        most: Rows that are sent at once without waiting longer; encoding them holds the event loop.
    """

    def __init__(self, send: Send, wait_s: float = 0.1, most: int = 32) -> None:
        self._send = send
        self._wait_s = wait_s
        self._most = most
        self._gatherings: dict[tuple[str, tuple[str, ...]], _Gathering] = {}
        self._sending: set[asyncio.Future[None]] = set()

    async def put(
        self,
        keys: Sequence[str],
        partition: str,
        rows: Sequence[Row] | None,
        tags: Sequence[Row],
        *,
        last: bool = False,
    ) -> None:
        """Store rows and their tags; returns once they are stored.

        Args:
            keys: One for each row.
            partition: TransferQueue's partition, `train` or `val`.
            rows: Columns of each row, the same for all of a call; None: only the tags are stored.
            tags: One for each row.
            last: Nothing else is coming that would be worth waiting for.

        Raises:
            Exception: what sending raised, in every call whose rows were sent together.
        """
        kind = (partition, tuple(sorted(rows[0])) if rows else ())
        gathering = self._gatherings.get(kind)
        if gathering is None:
            loop = asyncio.get_running_loop()
            gathering = self._gatherings[kind] = _Gathering(loop.create_future())
            loop.call_later(self._wait_s, self._flush, kind, gathering)
        gathering.keys += keys
        gathering.rows += rows or ()
        gathering.tags += tags
        if last or len(gathering.keys) >= self._most:
            self._flush(kind, gathering)
        # A call that is cancelled must not cancel the others' put.
        await asyncio.shield(gathering.done)

    def _flush(self, kind: tuple[str, tuple[str, ...]], gathering: _Gathering) -> None:
        if self._gatherings.get(kind) is not gathering:
            return  # it was full before its time
        del self._gatherings[kind]
        rows = gathering.rows or None
        task = asyncio.ensure_future(self._send(gathering.keys, kind[0], rows, gathering.tags))
        # The event loop holds tasks weakly.
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        task.add_done_callback(partial(_settle, gathering.done))


def _settle(done: asyncio.Future[None], sent: asyncio.Future[None]) -> None:
    """Give a future the end of another."""
    if sent.cancelled():
        done.cancel()
    elif (error := sent.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
