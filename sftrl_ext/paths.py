"""Folders of the configs and recipes, and the glossary, in a checkout or an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """Top-level folder of the checkout, or its copy inside the installed package."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def configs_dir() -> Path:
    """Folder of the Hydra groups."""
    return _shipped("configs")


def recipes_dir() -> Path:
    """Folder of the recipes that ship with the package."""
    return _shipped("recipes")


def glossary_file() -> Path:
    """The glossary of the documentation."""
    inside = _PACKAGE / "_shipped" / "glossary.md"
    return inside if inside.is_file() else _PACKAGE.parent / "docs" / "glossary.md"
