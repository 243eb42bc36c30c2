"""Asynchronous front of an engine: a thread decodes the requests of all callers together."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sftrl_ext.backends.hf.engine import Engine, Request, Response

_Waiter = tuple[Request, "asyncio.Future[Response]", asyncio.AbstractEventLoop]


class Batcher:
    """Runs an engine in a thread; coroutines of any event loop await their own response.

    Args:
        engine: The engine; nothing else may call it while the thread runs, except under :meth:`stopped`.
        gather_s: How long an idle engine waits for more requests after the first one, in seconds.
    """

    def __init__(self, engine: Engine, gather_s: float = 0.003) -> None:
        self.engine = engine
        self.gather_s = gather_s
        self._inbox: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._waiters: dict[int, _Waiter] = {}
        self._lock = threading.Lock()
        # A caller that waits for the lock holds the gate, or the thread would take the lock again at once.
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    async def generate(self, request: Request) -> Response:
        """Answer one request without blocking the event loop; cancelling the call frees its slot.

        Raises:
            SftrlError: if the engine refuses the request.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        self._inbox.put((request, future, loop))
        return await future

    def abort(self) -> int:
        """End every request now with what it has, as ``aborted``; return their number."""
        with self._gate, self._lock:
            self._collect()
            ended = self.engine.abort()
            self._deliver(ended)
        return len(ended)

    @contextmanager
    def stopped(self) -> Iterator[Engine]:
        """Pause the thread between two steps and give the engine, to change its weights."""
        with self._gate, self._lock:
            yield self.engine

    def close(self) -> None:
        """End the thread."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            # Wait outside the lock, so that an idle thread never holds it.
            first = None if self.engine.busy else self._inbox.get()
            if first is not None:
                time.sleep(self.gather_s)
            elif not self.engine.busy:
                return
            # Lets a waiting caller, who holds the gate, take the lock first.
            with self._gate:
                pass
            with self._lock:
                if first is not None:
                    self._take(first)
                if not self._collect():
                    return
                self._drop_cancelled()
                self._step()

    def _drop_cancelled(self) -> None:
        """Take the requests of cancelled callers out of the engine."""
        for key, (request, future, _) in list(self._waiters.items()):
            if future.cancelled():
                self.engine.cancel(request)
                del self._waiters[key]

    def _collect(self) -> bool:
        """Submit all requests of the inbox to the engine; False if the inbox holds the order to end."""
        while True:
            try:
                waiter = self._inbox.get_nowait()
            except queue.Empty:
                return True
            if waiter is None:
                return False
            self._take(waiter)

    def _take(self, waiter: _Waiter) -> None:
        request = waiter[0]
        try:
            self.engine.submit(request)
        except ValueError as error:
            self._resolve(waiter, error)
        else:
            self._waiters[id(request)] = waiter

    def _step(self) -> None:
        try:
            self._deliver(self.engine.step())
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to the callers that wait
            for request in self.engine.abort():
                waiter = self._waiters.pop(id(request))
                self._resolve(waiter, error)

    def _deliver(self, ended: list[Request]) -> None:
        for request in ended:
            waiter = self._waiters.pop(id(request))
            result = request.result
            self._resolve(waiter, result)

    @staticmethod
    def _resolve(waiter: _Waiter, answer: Response | Exception) -> None:
        _, future, loop = waiter

        def settle_if_waiting() -> None:
            # A cancelled caller has settled its future already.
            if future.done():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        # Futures belong to the caller's event loop, not to this thread.
        loop.call_soon_threadsafe(settle_if_waiting)
