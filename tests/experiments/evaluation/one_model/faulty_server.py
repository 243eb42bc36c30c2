"""HTTP server on loopback that answers as a test says, byte by byte."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def faulty_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve in a thread; ``answer`` writes what it likes for each request.

    Yields:
        The base address.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.body = self.rfile.read(int(self.headers["content-length"] or 0))
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has read enough
                answer(self)

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.socket.close()
        thread.join(timeout=10)
