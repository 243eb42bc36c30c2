"""Short iterations of an event loop that thousands of episodes share."""

from __future__ import annotations

import asyncio
import time


class TimeSlices:
    """Gate in front of work in the event loop: after a slice of it, everything else has a turn.

    asyncio runs all tasks that are ready before it looks at its sockets and timers again; when the answers of
    a thousand episodes arrive at once, that takes seconds. Work between two awaits stays as long as it is.

    Args:
        slice_s: Seconds of work between two looks at sockets and timers.
    """

    def __init__(self, slice_s: float = 0.01) -> None:
        self.slice_s = slice_s
        self._began = 0.0
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        """Wait for a slice with time left, in the order of the calls."""
        async with self._lock:
            if time.perf_counter() - self._began > self.slice_s:
                await asyncio.sleep(0)
                self._began = time.perf_counter()
