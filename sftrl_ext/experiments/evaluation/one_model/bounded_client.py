"""HTTP client for the `openai` package with bounds on each try: total time, size of the body, redirects.

The timeouts of HTTP clients are those of single reads, so a server that sends a byte now and then is never
late. Here one try, from connecting to the last byte, has a limit of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

MAX_BODY = 16 * 2**20
"""Bytes of a body that are read, after decompression; a completion has a few thousand."""

MAX_REDIRECTS = 5

CODINGS = ("", "identity", "gzip", "deflate")
"""Content codings that are decoded. Nested ones could grow a thousandfold with each level."""

_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


def httpx_of(openai: ModuleType) -> ModuleType:
    """The HTTP package that the `openai` package builds on: httpx, or in newer releases httpx2."""
    client = next(c for c in vars(openai)["DefaultAsyncHttpxClient"].__mro__ if c.__name__ == "AsyncClient")
    return sys.modules[client.__module__.partition(".")[0]]


def bounded_client(openai: ModuleType, timeout_s: float, check_body: Callable[[str, bytes], object]) -> Any:
    """A client for `openai.AsyncOpenAI`, which tries again after the errors that it raises.

    Args:
        openai: The package.
        timeout_s: Limit of one try, in seconds.
        check_body: Takes the method of a request and the body of its successful answer; raises ValueError
            if that is not what it should be, and the try has failed.

    Returns:
        An ``AsyncClient`` of the HTTP package.
    """
    httpx: Any = httpx_of(openai)
    base: Any = vars(openai)["DefaultAsyncHttpxClient"]

    class BoundedClient(base):  # type: ignore[misc]
        async def send(self, request: Any, **options: Any) -> Any:
            try:
                return await asyncio.wait_for(self._follow(request, options), timeout_s)
            except asyncio.TimeoutError:
                raise httpx.ReadTimeout(f"no whole answer in {timeout_s:g} s", request=request) from None

        async def _follow(self, request: Any, options: dict[str, Any]) -> Any:
            """Send a request, and those of its redirects."""
            options |= {"stream": True, "follow_redirects": False}
            for _ in range(1 + MAX_REDIRECTS):
                response = await super().send(request, **options)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
                if response.next_request is None:
                    return self._checked(response, body)
                request = response.next_request
            raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=request)

        async def _read(self, response: Any) -> bytes:
            coding = response.headers.get("content-encoding", "").strip().lower()
            if coding not in CODINGS:
                raise httpx.RemoteProtocolError(
                    f"an answer with content coding {coding[:60]!r}; expected gzip, deflate or none"
                )
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY:
                    raise httpx.RemoteProtocolError(f"an answer of more than {MAX_BODY:,} bytes")
            return bytes(body)

        def _checked(self, response: Any, body: bytes) -> Any:
            if response.is_success:
                try:
                    check_body(response.request.method, body)
                except ValueError as error:
                    raise httpx.RemoteProtocolError(str(error)) from None
            headers = [item for item in response.headers.multi_items() if item[0].lower() not in _OF_THE_WIRE]
            return httpx.Response(
                response.status_code, headers=headers, content=body, request=response.request
            )

    # Timeouts of single steps: connecting to a host that is not there should not take a whole try.
    return BoundedClient(
        timeout=openai.Timeout(timeout_s, connect=10.0), headers={"accept-encoding": "gzip, deflate"}
    )
