"""The report of a run that goes on, served on the loopback address and read anew when its files change."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich.console import Console

from sftrl_ext.errors import SftrlError, error_text
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.render import error_page, live_page

HOST = "127.0.0.1"
_FILES = ("state.json", "recipe.yaml", "eval/*.jsonl", "stages/*/*.jsonl")
"""Files that a report reads, in a run folder."""


class RunPage:
    """Page of a run folder, rendered again only after its files have changed.

    Attributes:
        run_dir: The run folder; it need not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._rendered: tuple[str, str] | None = None
        self._lock = threading.Lock()

    def stamp(self) -> str:
        """Digest of names, sizes and times of the files."""
        paths = sorted(path for pattern in _FILES for path in self.run_dir.glob(pattern))
        states = [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths if (stat := path.stat())]
        return hashlib.sha256(repr(states).encode()).hexdigest()[:16]

    def html(self) -> str:
        """The page; one that names the error where the folder cannot be read yet."""
        with self._lock:
            stamp = self.stamp()
            if self._rendered is None or self._rendered[0] != stamp:
                self._rendered = stamp, self._render(stamp)
            return self._rendered[1]

    def _render(self, stamp: str) -> str:
        try:
            return live_page(analyse(self.run_dir), stamp)
        except (SftrlError, OSError) as error:
            return error_page(f"{self.run_dir}", error_text(error), stamp)


class _Handler(BaseHTTPRequestHandler):
    """Answers ``/``, the page, and ``/stamp``, the state of its files, to programs on this machine."""

    def __init__(self, page: RunPage, *args: object) -> None:
        self.page = page
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a request."""
        port = self.connection.getsockname()[1]
        # Another host name here is a page of somewhere else that was pointed at this address.
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._answer(self.page.html(), "text/html")
        elif self.path == "/stamp":
            self._answer(self.page.stamp(), "text/plain")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, text: str, kind: str) -> None:
        data = text.encode("utf-8")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal free of requests."""


def run_server(run_dir: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page of a run folder, bound to the loopback address; 0 takes any free port.

    Raises:
        SftrlError: if the port is taken.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, RunPage(run_dir)))
    except OSError as error:
        raise SftrlError(f"--port {port}: {error.strerror}; expected a free port, or 0 for any.") from None


def watch_run(run_dir: Path, console: Console, port: int) -> None:
    """Serve the report of a run until interrupted.

    Args:
        run_dir: Run folder; need not exist yet.
        console: Where the address is printed.
        port: Port of the loopback address; 0 takes any free one.

    Raises:
        SftrlError: if the port is taken.
        KeyboardInterrupt: when interrupted.
    """
    with run_server(run_dir, port) as server:
        console.print(f"http://{HOST}:{server.server_address[1]}/", highlight=False, markup=False)
        console.print("Ctrl-C stops the server; the run is not touched.", highlight=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the server has stopped; the run is not touched.") from None
