"""Registration of the transformers engine with verl, as the rollout `hf` on any platform."""

from __future__ import annotations

from types import ModuleType

from sftrl_ext.after_import import after_import
from sftrl_ext.training.settings import HF_ROLLOUT


def register_rollout() -> None:
    """Schedule both registrations for verl's import of its registries; safe to call twice."""
    after_import("verl.workers.rollout.base", _sender)
    after_import("verl.workers.rollout.replica", _replica)


def _sender(module: ModuleType) -> None:
    """Add the sender to ``_ROLLOUT_REGISTRY``, which has no public function for it."""
    module._ROLLOUT_REGISTRY[(HF_ROLLOUT, "async")] = "sftrl_ext.backends.hf_in_verl.replica.HFWeightSender"


def _replica(module: ModuleType) -> None:
    """Add the replica to verl's public registry, which is filled lazily."""

    def load() -> type:
        from sftrl_ext.backends.hf_in_verl.replica import HFReplica

        return HFReplica

    module.RolloutReplicaRegistry.register(HF_ROLLOUT, load)
