"""A page that carries its scripts, data and style, under a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sftrl_ext.plain_text import printable
from sftrl_ext.reports.pages.glossary import glossary
from sftrl_ext.reports.pages.libraries import LIBRARIES, Library

_SCRIPTS = Path(__file__).parent / "scripts"
_STYLE = Path(__file__).parent / "templates" / "page.css"
_OWN = ("page.js", "charts.js", "episodes.js", "start.js")
"""Our scripts in the order in which a page runs them."""


def policy(connect: str = "'none'") -> str:
    """Content security policy of a page: its own scripts and style, pictures that it carries, nothing else.

    Args:
        connect: Sources that scripts may fetch from.
    """
    allowed = " ".join(map(_digest, scripts()))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style())}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


@cache
def scripts() -> tuple[str, ...]:
    """The scripts of a page: each library under its licence, then ours as one."""
    own = "\n".join((_SCRIPTS / name).read_text(encoding="utf-8") for name in _OWN)
    return (*map(_with_licence, LIBRARIES), f'"use strict";\n(() => {{\n{own}}})();')


@cache
def style() -> str:
    """The style sheet of a page."""
    return _STYLE.read_text(encoding="utf-8")


def _with_licence(library: Library) -> str:
    licence = library.licence.read_text(encoding="utf-8").strip()
    return f"/*! {library.name} {library.version}\n{licence}\n*/\n{library.text()}"


def page_parts(data: Mapping[str, Any], *, live: bool = False) -> dict[str, Any]:
    """Values of ``base.html.j2`` that are the same text on every page, and the page's data.

    Args:
        data: JSON-like: ``chart`` and ``episodes``, each None where the page has none; ``stamp`` on a page
            that its server writes anew.
        live: True if the page may ask the server it comes from.
    """
    return {
        "policy": policy("'self'" if live else "'none'"),
        "style": Markup(style()),
        "scripts": Markup("\n".join(f"<script>{text}</script>" for text in scripts())),
        "page_data": _data_element({"glossary": glossary(), **data}),
        "live": live,
    }


def _data_element(data: Mapping[str, Any]) -> Markup:
    """JSON as an element that no browser runs; nothing in it can end the element."""
    text = json.dumps(_printable(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(
        f'<script type="application/json" id="data">{text.replace("<", chr(92) + "u003c")}</script>'
    )


def _printable(value: Any) -> Any:
    """JSON-like data without control characters; those of a text would otherwise survive as escapes."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(entry) for key, entry in value.items()}
    return [_printable(entry) for entry in value] if isinstance(value, list | tuple) else value
