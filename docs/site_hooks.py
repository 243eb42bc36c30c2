"""Hooks of mkdocs: pages that lie outside ``docs``, and links that work in the repository and on the site.

A page of the site may link to any file of the repository, relative to itself, as a forge shows it. On the
site a link to another page leads there, and a link to a file that is no page becomes its plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = {
    "RESULTS.md": "results.md",
    "benchmarks/README.md": "benchmarks.md",
    "recipes/README.md": "all-recipes.md",
}
"""Pages that lie elsewhere in the repository, and what they are called on the site; each if it is there."""

_DOCS = "docs/"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```[^\S\n]*$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the list of recipes into the navigation where there is one."""
    if (_root(config) / "recipes/README.md").is_file() and config.nav is not None:
        config.nav.append({"All recipes": OUTSIDE["recipes/README.md"]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs``."""
    for path, name in OUTSIDE.items():
        file = _root(config) / path
        if file.is_file():
            files.append(File.generated(config, name, content=file.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site."""
    uri = page.file.src_uri
    # Where the page lies in the repository; its links are relative to that.
    source = {name: path for path, name in OUTSIDE.items()}.get(uri, _DOCS + uri)
    here = PurePosixPath(source).parent

    def rewrite(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        path, sharp, anchor = link.partition("#")
        if not path or ":" in path:
            return match[0]
        target = os.path.normpath(here / path)
        found = OUTSIDE.get(target, target[len(_DOCS) :] if target.startswith(_DOCS) else "")
        if found and files.get_file_from_path(found) is not None:
            return f"{mark}[{text}]({os.path.relpath(found, PurePosixPath(uri).parent)}{sharp}{anchor})"
        # Whether a file is there at all is for tests/test_docs.py to say.
        return text if (_root(config) / target).exists() else match[0]

    parts = _FENCE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(rewrite, part) for number, part in enumerate(parts))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
