"""The Ray that a run on one machine starts for itself, and other Rays on the machine that are in its way.

Without an address ``ray.init`` joins the cluster that the address file of ``ray start`` names, alive or not.
On a CPU verl then stops, because it declares resources of its own; on a GPU it would use those of the other
cluster.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

ADDRESS_VARIABLE = "RAY_ADDRESS"
LOCAL = "local"
"""Value of ``RAY_ADDRESS`` with which ``ray.init`` starts a Ray of its own."""

_GCS_PROCESS = "gcs_server"
"""Name of the process that every Ray head runs."""

_LONGEST_FOLDER = 42
"""A Unix socket's path has at most 107 characters; ``/session_<time>_<pid>/sockets/plasma_store`` has 64."""


def local_ray_env() -> dict[str, str]:
    """Variables of a command that must not join another Ray of this machine."""
    return {ADDRESS_VARIABLE: LOCAL}


def requested_address() -> str | None:
    """The cluster that ``RAY_ADDRESS`` names; None if unset, empty or ``local``."""
    address = os.environ.get(ADDRESS_VARIABLE, "")
    return None if address in ("", LOCAL) else address


def ray_folder() -> Path:
    """The folder of Ray's files, sockets among them."""
    return Path(os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))) / "ray"


def address_file() -> Path:
    """The file in which ``ray start`` leaves the address of its cluster."""
    return ray_folder() / "ray_current_cluster"


def describe_ray() -> list[str]:
    """Traces of Ray on this machine: ``RAY_ADDRESS``, running heads, the address file."""
    value = os.environ.get(ADDRESS_VARIABLE)
    lines = [f"{ADDRESS_VARIABLE}: {'not set' if value is None else repr(value)}" + _meaning()]
    heads = sum(_is_head(process) for process in psutil.process_iter(["name"]))
    if heads:
        lines.append(f"{heads} Ray {'head runs' if heads == 1 else 'heads run'} on this machine")
    if len(os.path.abspath(ray_folder())) > _LONGEST_FOLDER:
        lines.append(
            f"{ray_folder()}: too long for Ray's sockets (most: {_LONGEST_FOLDER} characters); set "
            "RAY_TMPDIR to a short path"
        )
    file = address_file()
    if file.is_file():
        address = file.read_text(encoding="utf-8", errors="replace").strip()
        alive = "answers" if answers(address) else "does not answer (stale)"
        lines.append(f"{file}: names {address}, which {alive}")
    return lines


def answers(address: str, timeout: float = 1.0) -> bool:
    """True if something listens at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _meaning() -> str:
    address = requested_address()
    if address is None:
        return ": a run on one node starts a Ray of its own"
    return f": training joins the cluster at {address}"


def _is_head(process: psutil.Process) -> bool:
    return process.info.get("name") == _GCS_PROCESS
