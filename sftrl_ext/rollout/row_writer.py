"""Grouped writes to TransferQueue: rows of several episodes in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

WAIT_S = 0.02
"""Seconds that a row waits for rows of other episodes."""

MOST_ROWS = 16
"""Most rows of a request: encoding one stays below ten milliseconds."""

Put = Callable[..., Awaitable[Any]]
"""``transfer_queue.async_kv_batch_put``."""


@dataclass
class _Pending:
    """Rows with the same columns that are not yet sent."""

    keys: list[str] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    tags: list[dict[str, Any]] = field(default_factory=list)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None


class RowWriter:
    """Sends rows in groups: most of what a request costs does not depend on its rows.

    Args:
        put: Writes a group.
    """

    def __init__(self, put: Put) -> None:
        self._put = put
        self._pending: dict[Hashable, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # The first nested tensor of a process imports torch's symbolic shapes, a tenth of a second.
        list_of_dict_to_tensordict([{"a": torch.zeros(size)} for size in (1, 2)])

    async def write(
        self,
        partition_id: str,
        keys: list[str],
        fields: list[dict[str, Any]],
        tags: list[dict[str, Any]],
    ) -> None:
        """Write the rows of an episode, and return when they are written.

        An error of the request is raised for every episode with rows in it.

        Args:
            partition_id: Partition of the queue.
            keys: One per row.
            fields: Columns of each row, the same in all.
            tags: Tags of each row.
        """
        group = partition_id, tuple(fields[0])
        pending = self._pending.get(group)
        if pending is None:
            pending = self._pending[group] = _Pending()
            task = asyncio.create_task(self._send(group, partition_id, pending))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        pending.keys += keys
        pending.fields += fields
        pending.tags += tags
        if len(pending.keys) >= MOST_ROWS:
            # The next row begins another group.
            del self._pending[group]
        await pending.sent.wait()
        if pending.error is not None:
            raise pending.error

    async def _send(self, group: Hashable, partition_id: str, pending: _Pending) -> None:
        await asyncio.sleep(WAIT_S)
        if self._pending.get(group) is pending:
            del self._pending[group]
        try:
            await self._put(
                keys=pending.keys,
                fields=list_of_dict_to_tensordict(pending.fields),
                tags=pending.tags,
                partition_id=partition_id,
            )
        except Exception as error:  # noqa: BLE001  every episode with rows in the group raises it
            pending.error = error
        finally:
            pending.sent.set()
