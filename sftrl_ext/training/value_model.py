"""Loader of verl's critic: the policy's weights under a new value head, or an error.

verl 0.9.1 loads a critic with ``verl.utils.model.load_valuehead_model``, which names flash attention in its
code and does not look at which weights were missing from the folder: transformers logs those and draws them
at random, be it a whole language model. The loader here replaces it on every platform. verl's second attempt,
a value head of the package ``trl``, is left out: the families that we train have a token classifier
(`vision_critic`), and its error would hide the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.verl_version import check_verl_version

if TYPE_CHECKING:
    import torch

VALUE_HEADS = ("score.", "classifier.")
"""Weights that a policy's folder need not have: the head of transformers' token classifiers."""
POLICY_HEADS = ("lm_head.",)
"""Weights of a policy's folder that a critic does not load."""
_SHOWN = 5


def verl_utils_model_load_valuehead_model(module: ModuleType) -> None:
    """Replace ``load_valuehead_model`` of verl's module ``verl.utils.model``."""
    module.load_valuehead_model = load_value_model  # type: ignore[attr-defined]


def load_value_model(
    local_path: str, torch_dtype: torch.dtype, model_config: Any, trust_remote_code: bool
) -> torch.nn.Module:
    """Load a critic from the folder of a policy, or of another critic.

    The attention kernel is the one of the configuration. The head is drawn from a fixed seed, so that a run
    that starts again is the same run.

    Args:
        local_path: Hugging Face folder.
        torch_dtype: Type of the weights.
        model_config: Configuration of transformers; verl has set ``num_labels`` to 1.
        trust_remote_code: True allows code in the folder.

    Raises:
        SftrlError: if transformers has no token classifier for the model, or the folder lacks weights of the
            critic other than its head.
    """
    import torch
    from transformers import AutoModelForTokenClassification

    check_verl_version("the loader of the critic")
    try:
        # The seed of the head must not touch the generator of the run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, loaded = AutoModelForTokenClassification.from_pretrained(
                local_path,
                dtype=torch_dtype,
                config=model_config,
                attn_implementation=model_config._attn_implementation,
                trust_remote_code=trust_remote_code,
                ignore_mismatched_sizes=True,  # reported below, with the missing ones
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        raise SftrlError(f"{local_path}: no critic can be loaded from this folder ({error}).") from error
    check_loaded(local_path, type(model).__name__, loaded)
    return model  # type: ignore[no-any-return]


def check_loaded(folder: str, kind: str, loaded: Mapping[str, Iterable[Any]]) -> None:
    """Check that a critic got every weight but its head from a folder.

    Args:
        folder: For the error.
        kind: Class of the critic, for the error.
        loaded: ``missing_keys``, ``mismatched_keys`` (name, shape in the folder, shape expected) and
            ``unexpected_keys`` of transformers.

    Raises:
        SftrlError: naming the weights.
    """
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith(VALUE_HEADS))
    unused = sorted(key for key in loaded["unexpected_keys"] if not key.startswith(POLICY_HEADS))
    mismatched = [
        f"{name} {tuple(stored)}, expected {tuple(expected)}"
        for name, stored, expected in sorted(loaded["mismatched_keys"])
    ]
    problems = [
        f"{len(keys)} {problem}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for problem, keys in (
            ("missing", missing),
            ("of another shape", mismatched),
            ("that the critic has no place for", unused),
        )
        if keys
    ]
    if problems:
        raise SftrlError(
            f"{folder}: not the weights of a {kind}; expected all but its head ({_patterns(VALUE_HEADS)}), "
            f"and nothing else but the policy's ({_patterns(POLICY_HEADS)}); found weights "
            f"{'; '.join(problems)}."
        )


def _patterns(prefixes: Iterable[str]) -> str:
    return " or ".join(f"{prefix}*" for prefix in prefixes)
