"""verl's client of the rollout servers with one request to the router for each episode."""

from __future__ import annotations

from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient


class EpisodeClient(LLMServerClient):
    """Keeps the server of an episode from its first turn to `end`.

    verl's client asks the router before every turn, which names the server of the turns before, and tells it
    after every turn. A router under this client therefore counts the episodes of a server.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, tuple[str, Any]] = {}

    @classmethod
    def of(cls, client: LLMServerClient) -> EpisodeClient:
        """The same servers and router as another client."""
        return cls(client.config, client._load_balancer)

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        if request_id not in self._held:
            self._held[request_id] = await super()._acquire_server(request_id, **extra)
        return self._held[request_id]

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        """Keep the server for the next turn."""

    def end(self, request_id: str) -> None:
        """Release the server of an episode that has ended; nothing if it had no turn."""
        name, _ = self._held.pop(request_id, (None, None))
        if name is not None:
            super()._release_server(name, request_id=request_id)
