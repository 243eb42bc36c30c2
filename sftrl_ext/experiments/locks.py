"""Locks between processes, on files; gone with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a network file system without locks, which is used without."""


@contextlib.contextmanager
def held(path: Path, on_wait: Callable[[], None] | None = None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: Its file, made if it is not there.
        on_wait: Called once if another process holds it; then this one waits. None: it does not wait.
        shared: Others may hold it, too, if they share it.

    Raises:
        BlockingIOError: if another process holds it and there is no waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open(
        "a+"
    ) as lock:  # NFS wants a file open for reading to share it, for writing to hold it alone
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise
            on_wait()
            fcntl.flock(lock, kind)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
