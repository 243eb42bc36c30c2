"""Sticky load balancer of the rollout, as an actor that starts in a fraction of a second.

verl's own load balancer does the same work, but its actor first imports the whole of verl: on two cores four
seconds of a start, and 400 MB. Nothing here imports verl or torch.
"""

from __future__ import annotations

from typing import Any


class StickyRouter:
    """Keeps an episode on the server that holds its earlier turns; a new one goes to the idlest server.

    Selected with ``rollout.router_config_path``, a YAML file that names this class as ``router_class``. The
    methods are those that verl calls on a router.

    Args:
        servers: Actor handles by name.
        config: The YAML file; ``remember`` is the number of episodes remembered.
    """

    def __init__(self, servers: dict[str, Any], config: dict[str, Any] | None = None) -> None:
        self._servers = dict(servers)
        self._inflight = dict.fromkeys(servers, 0)
        self._home: dict[str, str] = {}
        self._remember = int((config or {}).get("remember", 10_000))

    def require_acquire_fields(self) -> list[str]:
        """Nothing but the request id is needed to choose a server."""
        return []

    def require_release_fields(self) -> list[str]:
        """Nothing but the server is needed to release it."""
        return []

    def acquire_server(self, request_id: str, **unused: Any) -> tuple[str, Any]:
        """Choose the server for a request; return its name and handle.

        Raises:
            RuntimeError: if there is no server.
        """
        if not self._servers:
            raise RuntimeError("No available servers in load balancer")
        # Removed and added again, which makes it the most recently used.
        name = self._home.pop(request_id, None)
        if name not in self._servers:
            name = min(self._inflight, key=lambda server: self._inflight[server])
        self._home[request_id] = name
        if len(self._home) > self._remember:
            # Dictionaries keep their order: the first is the one unused for longest.
            del self._home[next(iter(self._home))]
        self._inflight[name] += 1
        return name, self._servers[name]

    def release_server(self, server_id: str, request_id: str | None = None) -> None:
        """Record the end of a request."""
        if server_id in self._inflight:
            self._inflight[server_id] = max(0, self._inflight[server_id] - 1)

    def add_servers(self, servers: dict[str, Any]) -> None:
        """Add servers by name."""
        self._servers.update(servers)
        self._inflight.update(dict.fromkeys(servers, 0))

    def remove_servers(self, server_ids: list[str]) -> None:
        """Remove servers by name."""
        for name in server_ids:
            self._servers.pop(name, None)
            self._inflight.pop(name, None)

    def get_all_servers(self) -> list[str]:
        """Names of the servers."""
        return list(self._servers)

    def get_inflight_count(self, server_id: str) -> int:
        """Requests a server is answering."""
        return self._inflight.get(server_id, 0)

    def get_total_inflight(self) -> int:
        """Requests all servers are answering."""
        return sum(self._inflight.values())

    def get_status(self) -> dict[str, Any]:
        """The present state, for logs."""
        return {
            "servers": dict(self._inflight),
            "total_inflight": self.get_total_inflight(),
            "active_servers": len(self._servers),
        }

    def clear_sticky_cache(self) -> dict[str, Any]:
        """Forget which server holds which episode."""
        cleared = len(self._home)
        self._home.clear()
        return {"cleared_entries": cleared, "server_loads": dict(self._inflight)}
