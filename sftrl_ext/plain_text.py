"""Text of models and of foreign files, made safe for terminals, pages and file names."""

from __future__ import annotations

import re

_NAME_BYTES = 100
"""Of the 255 that file systems allow; a number and a suffix follow."""


def safe_name(text: str) -> str:
    """Part of a file name, never a path: letters, digits, ``_``, ``-`` and inner dots of a text."""
    name = re.sub(r"[^\w.-]+", "-", text).strip(".-").encode(errors="ignore")[:_NAME_BYTES]
    return name.decode(errors="ignore") or "unnamed"
