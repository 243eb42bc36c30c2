"""Saying what to install where matplotlib is missing: the base install has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sftrl_ext.errors import SftrlError
from sftrl_ext.paths import install_command


@contextmanager
def needs_matplotlib(what: str) -> Iterator[None]:
    """Import what draws within this context.

    Args:
        what: What is to be drawn, for the error: "a report".

    Raises:
        SftrlError: if matplotlib is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise SftrlError(f"{what} needs matplotlib: `{install_command('train')}`.") from None
