"""Registration with verl, in every process: trainers, agent loop, engine, models, policy loss, plug-ins.

Called from the ``verl.plugins`` entry point, so it runs at ``import verl`` in every Ray worker on every node
where the package is installed. Nothing is imported here: each registration waits until verl imports the
module that holds the registry. `missing_registrations` checks the result.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from sftrl_ext.after_import import after_import
from sftrl_ext.plugins import load_plugins
from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.training.settings import POLICY_LOSS, TRAINERS

_WITH_PLUGINS = (
    "verl.trainer.ppo.v1",
    "verl.experimental.agent_loop.agent_loop",
    "verl.workers.engine.fsdp.transformer_impl",
)
"""Modules of verl that only processes of the trainer, the rollout and the training engines import."""


def register_with_verl() -> None:
    """Schedule all registrations; safe to call twice."""
    after_import("verl.trainer.ppo.v1", _trainer)
    after_import("verl.experimental.agent_loop.agent_loop", _agent_loop)
    after_import("verl.trainer.ppo.core_algos", _policy_loss)
    after_import("verl.workers.engine.fsdp.transformer_impl", _engine)
    after_import("verl.utils.model", _models)
    after_import("verl.workers.engine.utils", _micro_batches)
    after_import("verl.utils.torch_functional", _token_statistics)
    after_import("verl.models.transformers.qwen2_vl", _pictureless_rows)
    after_import("verl.utils.tracking", _tracking)
    for module in _WITH_PLUGINS:
        after_import(module, _plugins)


def _trainer(_: ModuleType) -> None:
    importlib.import_module("sftrl_ext.training.trainer")


def _policy_loss(_: ModuleType) -> None:
    importlib.import_module("sftrl_ext.training.policy_loss")


def _models(module: ModuleType) -> None:
    importlib.import_module("sftrl_ext.rollout.packed_pictures").unpack_on_the_way_in(module)
    importlib.import_module("sftrl_ext.training.vision_critic").register_critics(module)
    importlib.import_module("sftrl_ext.training.mllama_rows").register_mllama()
    importlib.import_module("sftrl_ext.training.value_model").verl_utils_model_load_valuehead_model(module)


def _engine(module: ModuleType) -> None:
    importlib.import_module("sftrl_ext.training.engine").register_engine(module)


def _micro_batches(module: ModuleType) -> None:
    importlib.import_module("sftrl_ext.training.padded_batches").cap_padded_rows(module)


def _token_statistics(module: ModuleType) -> None:
    importlib.import_module("sftrl_ext.training.chunked_log_probs").log_probs_in_chunks(module)
    importlib.import_module("sftrl_ext.training.padded_batches").entropy_row_by_row(module)


def _pictureless_rows(module: ModuleType) -> None:
    patches = importlib.import_module("sftrl_ext.training.pictureless_rows")
    patches.verl_models_transformers_qwen2_vl_get_input_embeds(module)


def _plugins(_: ModuleType) -> None:
    load_plugins()


def _tracking(module: ModuleType) -> None:
    load_plugins()
    importlib.import_module("sftrl_ext.training.plugin_trackers").verl_utils_tracking_tracking(module)


def _agent_loop(module: ModuleType) -> None:
    # By name, so that only a worker that plays episodes imports the loop.
    importlib.import_module("sftrl_ext.rollout.packed_pictures").pack_on_the_way_out(module)
    module._agent_loop_registry[AGENT_LOOP] = {"_target_": "sftrl_ext.rollout.verifier_loop.VerifierLoop"}


def missing_registrations() -> list[str]:
    """List our names that are absent from verl's registries; imports verl's trainer (seconds).

    An empty list means that the plug-in works in a process like this one.
    """
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    registered = {
        **{f"trainer {name}": name in TRAINER_REGISTRY for name in TRAINERS.values()},
        f"agent loop {AGENT_LOOP}": AGENT_LOOP in _agent_loop_registry,
        f"policy loss {POLICY_LOSS}": POLICY_LOSS in POLICY_LOSS_REGISTRY,
    }
    return [name for name, present in registered.items() if not present]
