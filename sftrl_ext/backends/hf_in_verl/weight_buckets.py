"""verl's bucketed weight transfer, loaded from its file: its package imports vLLM, which a laptop lacks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import verl

_FILE = Path(verl.__file__).parent / "workers" / "rollout" / "vllm_rollout" / "bucketed_weight_transfer.py"
_NAME = "sftrl_ext_verl_bucketed_weight_transfer"


def _load() -> ModuleType:
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_NAME, _FILE)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {_FILE}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # Cached, so that both names below come from one module.
        sys.modules[_NAME] = module
    return sys.modules[_NAME]


BucketedWeightSender = _load().BucketedWeightSender
BucketedWeightReceiver = _load().BucketedWeightReceiver
