"""The verl release that everything which reaches into verl was written against."""

from __future__ import annotations

import importlib.metadata

from sftrl_ext.errors import SftrlError

VERL_VERSION = "0.9.1"
"""The only verl release whose functions we replace."""


def check_verl_version(feature: str, remedy: str = "") -> None:
    """Refuse any verl but the one a replacement was written for.

    Args:
        feature: What depends on the release, as the subject of the error ("training on the CPU").
        remedy: What else can be done beside installing that release.

    Raises:
        SftrlError: if another version is installed.
    """
    installed = importlib.metadata.version("verl")
    if installed != VERL_VERSION:
        raise SftrlError(
            f"{feature} patches verl {VERL_VERSION}, but verl {installed} is installed: "
            f"install verl=={VERL_VERSION}{remedy}."
        )
