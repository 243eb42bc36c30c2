"""Child processes of a run: log, peak memory, and clean-up after a kill."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json

MARK = "SFTRL_STAGE_RECORD"
"""Variable of every process of a stage, with the path of its record; it finds orphans."""

_TEMP_PREFIX = "sftrl-stage-"
_POLL_SECONDS = 0.5
_MEMORY_SECONDS = 3.0


@dataclass(frozen=True)
class FinishedProcess:
    """Exit status and usage of a child process.

    Attributes:
        code: Its exit status.
        wall_s: Seconds from start to end.
        peak_rss_mb: Largest memory of the whole process tree seen, in MiB (proportional share where the
            system tells it, so that memory shared between processes counts once).
    """

    code: int
    wall_s: float
    peak_rss_mb: float


def run_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    record: Path,
    on_poll: Callable[[], None] | None = None,
    own_temp: bool = True,
) -> FinishedProcess:
    """Run a command to its end and append its output to a log.

    Args:
        command: The argument list.
        env: Variables added to this process's own.
        log: File that receives stdout and stderr.
        record: File that names the child while it lives, for `kill_leftovers` of a later run.
        on_poll: Called about twice a second (progress).
        own_temp: Give the child a temporary folder of its own, removed after it. Not for a child that joins
            a Ray of the machine, whose address stands in the common one.

    Returns:
        The exit status, wall time and peak memory. An interrupt ends the child's whole tree first.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    peak = 0.0
    next_look = 0.0
    with log.open("ab") as output, contextlib.ExitStack() as stack:
        temp = _make_temp() if own_temp else None
        stack.callback(_remove_temp, temp)
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        child = subprocess.Popen(
            list(command),
            env={**os.environ, **_temp_env(temp), **env, MARK: str(record)},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            # Ctrl-C at the terminal reaches the runner only, which then ends the whole tree.
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        process = psutil.Process(child.pid)
        write_json(record, {"pid": child.pid, "created": process.create_time(), "temp": temp})
        try:
            while child.poll() is None:
                now = time.monotonic()
                # Proportional shares are read from the memory maps of every process: less often than the
                # progress.
                if now >= next_look:
                    peak = max(peak, _tree_memory_mb(process))
                    next_look = now + _MEMORY_SECONDS
                if on_poll is not None:
                    on_poll()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            end_tree(process)
            raise
    record.unlink(missing_ok=True)
    return FinishedProcess(child.returncode, time.monotonic() - started, peak)


def process_names(record: Path) -> list[str]:
    """Names of the processes of a running child and its descendants; Ray names its workers ``ray::<class>``.

    Args:
        record: The child's record.
    """
    names = []
    with contextlib.suppress(psutil.Error, SftrlError):  # it may have ended
        process = psutil.Process(int(read_json(record)["pid"]))
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                names.append(member.name())
    return names


def kill_leftovers(record: Path) -> bool:
    """Kill processes that survived an interrupted run, including orphans.

    Returns:
        True if there were any.
    """
    if not record.is_file():
        return False
    child = read_json(record)
    survived = False
    try:
        process = psutil.Process(int(child["pid"]))
        # Process ids are given out again; with another time of creation it is another process.
        if abs(process.create_time() - float(child["created"])) < 1.0:
            end_tree(process)
            survived = True
    except psutil.NoSuchProcess:
        pass
    for orphan in _marked(record):
        end_tree(orphan)
        survived = True
    _remove_temp(child.get("temp"))
    record.unlink(missing_ok=True)
    return survived


def _temp_env(temp: str | None) -> dict[str, str]:
    """Variables of a child that puts its temporary files, Ray's among them, into a folder."""
    if temp is None:
        return {}
    # What torch compiled is for later runs too.
    compiled = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    cache = {} if "TORCHINDUCTOR_CACHE_DIR" in os.environ else {"TORCHINDUCTOR_CACHE_DIR": str(compiled)}
    return {"TMPDIR": temp, "RAY_TMPDIR": temp, **cache}


def _make_temp() -> str:
    """Make a temporary folder; in Ray's, if that is named, which may not be there yet."""
    parent = os.environ.get("RAY_TMPDIR")
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=_TEMP_PREFIX, dir=parent or None)


def _remove_temp(temp: str | None) -> None:
    """Remove the temporary folder of a child; a record that names another folder removes nothing."""
    if temp is not None and Path(temp).name.startswith(_TEMP_PREFIX):
        shutil.rmtree(temp, ignore_errors=True)


def _marked(record: Path) -> Iterator[psutil.Process]:
    """Processes of this machine that carry the mark of a stage in their environment."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(record):
                yield process
        except (psutil.Error, OSError):  # gone, or another user's
            continue


def end_tree(process: psutil.Process, patience: float = 10.0) -> None:
    """End a process and all its descendants: politely first, then for good."""
    try:
        tree = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for member in tree:
            try:
                member.send_signal(sign)
            except psutil.NoSuchProcess:
                continue
        _, tree = psutil.wait_procs(tree, timeout=patience)
        if not tree:
            return


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    if not log.is_file():
        return ""
    with log.open(encoding="utf-8", errors="replace") as text:
        return "".join(deque(text, maxlen=lines)).rstrip()


def end_with_parent() -> None:
    """Ask the kernel to end this process when the runner dies, even by ``kill -9``."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _tree_memory_mb(process: psutil.Process) -> float:
    """Memory of a process tree in MiB."""
    total = 0
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for member in tree:
        try:
            info = member.memory_full_info()
            total += getattr(info, "pss", info.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 2**20
