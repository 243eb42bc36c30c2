"""MkDocs hooks: pages from elsewhere, and links that work in the repository and on the site.

A page may link to any file of the repository by a relative path, as on GitHub. On the site, a link to another
page becomes a link within the site, and a link to any other file becomes plain text. Where
``<name>-dark.png`` lies beside ``<name>.png``, dark pages show that one.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = {
    "RESULTS.md": "results.md",
    "benchmarks/README.md": "benchmarks.md",
    "recipes/README.md": "all-recipes.md",
}
"""Pages from outside ``docs``: path in the repository to name on the site. Missing files are skipped."""

_DOCS = "docs/"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```[^\S\n]*$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the list of recipes and their pages to the navigation."""
    if (_root(config) / "recipes/README.md").is_file() and config.nav is not None:
        pages = sorted(Path(config.docs_dir, "recipes").glob("*.md"), key=_figure_number)
        entries = [{page.stem: f"recipes/{page.name}"} for page in pages]
        config.nav.append({"All recipes": [{"List": OUTSIDE["recipes/README.md"]}, *entries]})
    return config


def _figure_number(page: Path) -> tuple[float, str]:
    """Sort key of a recipe's page: by figure of the paper, then those beyond it."""
    number = re.match(r"fig(\d+)", page.stem)
    return (float(number[1]) if number else float("inf"), page.stem)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs``, and the command line's."""
    # The parser needs no more than rich; the package itself is not installed here.
    sys.path[:0] = [str(_root(config)), config.docs_dir]
    from cli_page import cli_page

    files.append(File.generated(config, "cli.md", content=cli_page()))
    for path, name in OUTSIDE.items():
        file = _root(config) / path
        if file.is_file():
            files.append(File.generated(config, name, content=file.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site."""
    uri = page.file.src_uri
    # Links are relative to the page's path in the repository.
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
            address = os.path.relpath(found, PurePosixPath(uri).parent)
            if mark and files.get_file_from_path(_dark(found)) is not None:
                return f"![{text}]({address}#only-light)![{text}]({_dark(address)}#only-dark)"
            return f"{mark}[{text}]({address}{sharp}{anchor})"
        # tests/test_docs.py reports links to missing files.
        return text if (_root(config) / target).exists() else match[0]

    parts = _FENCE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(rewrite, part) for number, part in enumerate(parts))


def _dark(image: str) -> str:
    """Path of the picture that the dark pages show in the place of another."""
    path = PurePosixPath(image)
    return str(path.with_name(f"{path.stem}-dark{path.suffix}"))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
