"""Where the configs and recipes are, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """A top-level folder of the checkout, or its copy inside the installed package."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def configs_dir() -> Path:
    """The Hydra groups."""
    return _shipped("configs")


def recipes_dir() -> Path:
    """The recipes that ship with the package."""
    return _shipped("recipes")
