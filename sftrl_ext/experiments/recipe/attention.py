"""Attention kernel of training on GPUs: flash-attn on packed rows, or torch's SDPA on padded rows.

verl's default is ``flash_attention_2`` with packed rows (``use_remove_padding``) for SFT, actor, reference
and critic. flash-attn comes as source only and needs a CUDA compiler, so the extra ``gpu`` does not bring it.
Without it every model of a run needs SDPA, on padded rows: transformers would keep packed rows apart under
SDPA by a mask of (all tokens) x (all tokens), and verl's attention for Qwen2-VL and Qwen2.5-VL on packed rows
calls flash-attn whatever the config says.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from functools import lru_cache

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.experiments.recipe.schema import Recipe

FLASH, SDPA = "flash_attention_2", "sdpa"
CHOICES = ("auto", FLASH, SDPA)
"""Values of ``scale.attention``."""

_RL_MODELS = ("actor_rollout_ref.model", "critic.model")
"""Models of an RL command; verl's reference policy is built from the actor's."""
_SFT_MODELS = ("model",)


@dataclass(frozen=True)
class Attention:
    """The attention kernel of a run.

    Attributes:
        kernel: ``flash_attention_2`` or ``sdpa``: ``attn_implementation`` of transformers.
        reason: Why this one.
    """

    kernel: str
    reason: str

    @property
    def packed(self) -> bool:
        """True if rows are packed without padding (``use_remove_padding``)."""
        return self.kernel == FLASH

    def __str__(self) -> str:
        return f"{self.kernel} ({self.reason})"


def check_attention(recipe: Recipe) -> None:
    """Refuse a value of ``scale.attention`` that is unknown, or that the backend does not have.

    Raises:
        SftrlError: with the nearest known value.
    """
    scale = recipe.scale
    if scale.attention not in CHOICES:
        raise SftrlError(f"scale.attention: {unknown_name('attention', scale.attention, CHOICES)}")
    if scale.backend == "cpu" and scale.attention == FLASH:
        raise SftrlError(
            f"scale.attention: found {FLASH} with scale.backend=cpu; expected sdpa or auto: flash-attn runs "
            "on CUDA only."
        )


def resolve_attention(recipe: Recipe) -> Attention:
    """The kernel that a recipe trains with in this environment; ``auto`` is decided here."""
    scale = recipe.scale
    if scale.backend == "cpu":
        return Attention(SDPA, "scale.backend is cpu")
    if scale.attention != "auto":
        return Attention(scale.attention, "scale.attention")
    fault = flash_attn_fault()
    return Attention(FLASH, "flash-attn is installed") if fault is None else Attention(SDPA, fault)


def pin_attention(recipe: Recipe) -> Recipe:
    """The recipe with ``auto`` replaced by the kernel it resolves to; a run keeps this kernel to its end."""
    return replace(recipe, scale=replace(recipe.scale, attention=resolve_attention(recipe).kernel))


def same_but_auto(requested: Recipe, pinned: Recipe) -> bool:
    """True if a requested recipe is that of a run, whose ``auto`` was pinned at its start."""
    if requested.scale.attention == "auto":
        requested = replace(requested, scale=replace(requested.scale, attention=pinned.scale.attention))
    return requested == pinned


def require_attention(recipe: Recipe, on_cluster: bool) -> None:
    """Refuse to train with flash-attn where it cannot be imported.

    Args:
        recipe: The recipe.
        on_cluster: Training runs on the nodes of a Ray cluster, which are checked one by one
            (`sftrl_ext.experiments.cluster.check_nodes`); this machine need not have it.

    Raises:
        SftrlError: naming the key to change.
    """
    if on_cluster or resolve_attention(recipe).kernel != FLASH:
        return
    fault = flash_attn_fault()
    if fault is not None:
        raise SftrlError(
            f"scale.attention is {FLASH}, but {fault} in this environment; install flash-attn here, or set "
            "scale.attention=sdpa (a run that was begun with flash-attn goes on with it only)."
        )


def rl_attention_overrides(recipe: Recipe) -> list[str]:
    """Overrides of verl's PPO command: kernel and packing of actor, reference and critic."""
    return _overrides(recipe, _RL_MODELS)


def sft_attention_overrides(recipe: Recipe) -> list[str]:
    """Overrides of verl's SFT command: kernel and packing of its model."""
    return _overrides(recipe, _SFT_MODELS)


def _overrides(recipe: Recipe, models: tuple[str, ...]) -> list[str]:
    if recipe.scale.backend == "cpu":  # configs/backend/cpu.yaml has both
        return []
    attention = resolve_attention(recipe)
    overrides = []
    for model in models:
        overrides.append(f"{model}.override_config.attn_implementation={attention.kernel}")
        overrides.append(f"{model}.use_remove_padding={str(attention.packed).lower()}")
    return overrides


@lru_cache(maxsize=1)
def flash_attn_fault() -> str | None:
    """Why flash-attn 2 cannot be used in this environment; None if it can be imported.

    FlashAttention 4 is installed below the same package name without the functions that verl and
    transformers call, so the functions are imported and not the package alone.
    """
    try:
        module = importlib.import_module("flash_attn")
        _ = module.flash_attn_func, module.flash_attn_varlen_func
    except ModuleNotFoundError as error:
        if error.name == "flash_attn":
            return "flash-attn is not installed"
        return f"flash-attn cannot be imported: {error}"
    except Exception as error:  # noqa: BLE001 - a build against another torch or CUDA fails in many ways
        return f"flash-attn cannot be imported: {type(error).__name__}: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
