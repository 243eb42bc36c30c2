"""LRU cache bounded in bytes, since pictures differ in size a thousandfold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """LRU cache of function results that holds at most a number of bytes.

    Attributes:
        at_most: Most bytes to keep.
        size: Bytes kept now.
    """

    def __init__(self, at_most: int, measure: Callable[[T], int]) -> None:
        """Make an empty cache.

        Args:
            at_most: Most bytes to keep.
            measure: Gives the bytes of one thing.
        """
        self.at_most = at_most
        self.size = 0
        self._measure = measure
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, make: Callable[..., T], *args: Hashable) -> T:
        """Return ``make(*args)``, cached. It is shared: copy it before changing it."""
        key = (make, args)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Outside the lock: two threads may make the same thing, but none waits for another's.
        thing = make(*args)
        with self._lock:
            if key not in self._kept and self._measure(thing) <= self.at_most:
                self._kept[key] = thing
                self.size += self._measure(thing)
            while self.size > self.at_most:
                self.size -= self._measure(self._kept.popitem(last=False)[1])
        return thing
