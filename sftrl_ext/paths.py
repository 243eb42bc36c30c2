"""Configs, recipes and glossary of a checkout or an installed wheel; commands that install extras."""

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


def shown_path(path: Path) -> Path:
    """A path as a command typed here names it: relative below the working folder, else absolute."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


REPOSITORY_VARIABLE = "SFTRL_REPO"
"""Variable that the README sets to the URL of the repository; the package is on no index."""


def install_command(extra: str) -> str:
    """Command that adds an extra to this environment: from the checkout, or else from the repository."""
    checkout = _PACKAGE.parent
    if not (checkout / "pyproject.toml").is_file():
        return f'pip install "sftrl-ext[{extra}] @ git+${REPOSITORY_VARIABLE}"'
    folder = Path(".") if checkout == Path.cwd() else shown_path(checkout)
    pins = checkout / "constraints" / f"{extra}.txt"
    constraint = f"-c {shown_path(pins)} " if pins.is_file() else ""
    return f"pip install {constraint}-e '{folder}[{extra}]'"
