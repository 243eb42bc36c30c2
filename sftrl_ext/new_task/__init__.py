"""``sftrl new task``: an installable package with a task of its own, from templates."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

import sftrl_ext
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_text
from sftrl_ext.templates import template_environment

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "recipe.yaml": "recipe.yaml",
    "__init__.py": "{name}/__init__.py",
    "episode.py": "{name}/episode.py",
    "rows.py": "{name}/rows.py",
    "task.py": "{name}/task.py",
    "test_task.py": "tests/test_{name}.py",
}
"""Template (without ``.j2``) to the path of its file in the new folder."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def write_task(name: str, out: Path) -> list[Path]:
    """Write a package with a task that runs as it is, into ``<out>/<name>``.

    Args:
        name: Name of the task, and of the package.
        out: The folder to put it in.

    Returns:
        The paths of its files.

    Raises:
        SftrlError: if the name cannot be one of a package, is taken, or the folder is there already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise SftrlError(f"{name!r} is no name for a task; expected small letters, digits and _.")
    folder = out / name
    if folder.exists():
        raise SftrlError(f"{folder}: exists already; expected a name or --out of a new folder.")
    if importlib.util.find_spec(name) is not None:
        raise SftrlError(f"{name!r} is the name of an installed module; expected another name.")
    environment = template_environment("sftrl_ext.new_task")
    values = {"name": name, "cls": name.title().replace("_", ""), "version": sftrl_ext.__version__}
    paths = []
    for template, target in FILES.items():
        path = folder / target.format(name=name)
        write_text(path, environment.get_template(f"{template}.j2").render(values))
        paths.append(path)
    return paths
