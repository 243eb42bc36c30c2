"""Parts of a rendered page: its visible markup, and the data that its scripts draw."""

from __future__ import annotations

import json
import re
from typing import Any

SCRIPT = re.compile(r"<script(?P<kind>[^>]*)>(?P<text>.*?)</script>", re.DOTALL)


def markup(html: str) -> str:
    """A page without scripts, data and style."""
    return re.sub(r"<style>.*?</style>", "", SCRIPT.sub("", html), flags=re.DOTALL)


def page_data(html: str) -> dict[str, Any]:
    """The data of a page."""
    (text,) = (match["text"] for match in SCRIPT.finditer(html) if "application/json" in match["kind"])
    data: dict[str, Any] = json.loads(text)
    return data


def dialogue_texts(html: str) -> str:
    """Every text of the kept episodes of a page."""
    return "\n".join(page_data(html)["episodes"]["texts"])
