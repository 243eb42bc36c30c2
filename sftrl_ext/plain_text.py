"""Text of models and of foreign files, made safe for terminals, pages and file names."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Control characters but for line ends and tabs, those that turn the direction of a line, lone surrogates."""

_NAME_BYTES = 100
"""Of the 255 that file systems allow; a number and a suffix follow."""


def printable(text: str) -> str:
    """Show control characters as symbols, so that no text moves a cursor, sets a title or hides a line."""
    return _UNPRINTABLE.sub(lambda match: _symbol(ord(match[0])), text)


def _symbol(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """A printable text as one line."""
    return " ".join(printable(text).split())


def safe_name(text: str) -> str:
    """Part of a file name, never a path: letters, digits, ``_``, ``-`` and inner dots of a text."""
    name = re.sub(r"[^\w.-]+", "-", text).strip(".-").encode(errors="ignore")[:_NAME_BYTES]
    return name.decode(errors="ignore") or "unnamed"


def markdown_line(text: str) -> str:
    """A text as one line of Markdown in which only parts in backquotes are read as markup."""
    pieces = re.split(r"(`[^`]+`)", one_line(text))
    return "".join(p if n % 2 else re.sub(r"([\\<\[*])", r"\\\1", p) for n, p in enumerate(pieces))
