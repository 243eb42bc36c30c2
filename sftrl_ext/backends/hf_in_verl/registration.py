"""Make the transformers engine known to verl as a rollout, by name, on any platform."""

from __future__ import annotations

from types import ModuleType

from sftrl_ext.after_import import after_import
from sftrl_ext.backends.hf_in_verl.server import ROLLOUT_NAME


def register_rollout() -> None:
    """Arrange for both registrations, to be done once verl imports its registries; safe to call twice."""
    after_import("verl.workers.rollout.base", _sender)
    after_import("verl.workers.rollout.replica", _replica)


def _sender(module: ModuleType) -> None:
    """``_ROLLOUT_REGISTRY``, the worker-side table of engines, has no public way in."""
    module._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = "sftrl_ext.backends.hf_in_verl.replica.HFWeightSender"


def _replica(module: ModuleType) -> None:
    """The engine's replica, where verl looks it up (a public registry, filled lazily)."""

    def load() -> type:
        from sftrl_ext.backends.hf_in_verl.replica import HFReplica

        return HFReplica

    module.RolloutReplicaRegistry.register(ROLLOUT_NAME, load)
