"""Import graph of the product: rooms import downwards only, no circles, and no name of a module that is gone.

Imports inside functions and under ``TYPE_CHECKING`` count, and modules named in ``import_module`` calls.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "sftrl_ext",
        "errors",
        "files",
        "paths",
        "verl_version",
        "after_import",
        "hf_folder",
        "templates",
        "plain_text",
        "plugins",
    ),
    ("envs",),
    ("reward_fns", "data_prep", "runs", "new_task"),
    ("rollout",),
    ("training",),
    ("backends",),
    ("reports",),
    ("experiments",),
    ("bridges",),
    ("cli", "cli_eval", "cli_list", "cli_new", "cli_plugin", "cli_rehearse", "cli_run", "cli_template"),
)
"""Rooms of each floor of docs/architecture.md, from the ground up; a room imports from lower floors."""

WITHIN_FLOOR = {
    ("files", "errors"),
    ("verl_version", "errors"),
    ("hf_folder", "errors"),
    ("hf_folder", "files"),
    ("hf_folder", "after_import"),
    ("plugins", "errors"),
    ("plugins", "files"),
    ("cli", "cli_eval"),
    ("cli", "cli_new"),
    ("cli", "cli_plugin"),
    ("cli_eval", "cli_plugin"),
    ("cli_list", "cli_plugin"),
    ("cli_run", "cli_plugin"),
    ("cli", "cli_list"),
    ("cli", "cli_rehearse"),
    ("cli", "cli_run"),
    ("cli", "cli_template"),
}
"""Imports between single files of one floor."""


ENTRY_POINT_GROUPS = {"sftrl_ext.tasks"}
"""Names in texts that look like modules and are groups of entry points."""


@cache
def modules() -> dict[str, Path]:
    """Modules of the product by dotted name."""
    paths = [path for top in ("sftrl_ext", "data_prep") for path in sorted((ROOT / top).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the product that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(submodules & modules().keys())
            if submodules - modules().keys():
                names.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names.update(argument.value for argument in node.args if isinstance(argument, ast.Constant))
    return frozenset((names & modules().keys()) - {module})


def room(module: str) -> str:
    """Room of a module: a folder of the package, or a file at its top."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sftrl_ext" and len(parts) > 1 else parts[0]


def circles() -> list[set[str]]:
    """Sets of modules that reach each other by imports."""
    graph = {module: set(imports(module)) for module in modules()}
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in graph}
    return [set(group) for group in groups if len(group) > 1]


@pytest.mark.parametrize("room", ["experiments", "reports"])
def test_no_folder_of_a_large_room_is_crowded(room):
    folders = [
        ROOT / "sftrl_ext" / room,
        *(path.parent for path in (ROOT / "sftrl_ext" / room).rglob("__init__.py")),
    ]
    crowded = {str(folder): count for folder in folders if (count := len(list(folder.glob("*.py")))) > 15}
    assert len(set(folders)) > 5 and not crowded


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - reached:
            reached.add(module)
            waiting.append(module)
    return reached


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_room_imports_from_lower_floors_only(floor: int) -> None:
    allowed = {name for lower in FLOORS[:floor] for name in lower}
    wrong = [
        f"{module} imports {target}"
        for module in modules()
        if room(module) in FLOORS[floor]
        for target in sorted(imports(module))
        if room(target) not in {*allowed, room(module)} and (room(module), room(target)) not in WITHIN_FLOOR
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor() -> None:
    named = [name for floor in FLOORS for name in floor]
    assert len(named) == len(set(named))
    assert {room(module) for module in modules()} <= set(named)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circles()


def test_named_modules_and_files_exist() -> None:
    """Docs, configs, docstrings and the Makefile name modules as text, which no import checks."""
    missing = []
    for path in _texts():
        text = path.read_text(encoding="utf-8")
        dotted = re.finditer(r"\b(?:sftrl_ext|data_prep)(?:\.[A-Za-z]\w*)+", text)
        files = re.finditer(r"\b(?:sftrl_ext|data_prep)(?:/\w+)+\.(?:py|yaml)\b", text)
        names = [match.group() for match in dotted if not _is_defined(match.group())]
        names += [match.group() for match in files if not (ROOT / match.group()).exists()]
        missing += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert not missing, "\n".join(missing)


def test_imported_names_exist() -> None:
    """Tests import within functions, which nothing but the test itself checks; some run in nightly alone."""
    wrong = [
        f"{path.relative_to(ROOT)}, line {node.lineno}: {node.module} has no {alias.name}"
        for folder in ("sftrl_ext", "data_prep", "tests", "benchmarks", "docs", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.level or _is_own(node.module) and not _has(str(node.module), alias.name)
    ]
    assert not wrong, "\n".join(wrong)


def _is_own(module: str | None) -> bool:
    return str(module).split(".")[0] in ("sftrl_ext", "data_prep", "tests", "benchmarks")


def _has(module: str, name: str) -> bool:
    """True if a module defines or imports a name, or holds a module of that name."""
    path = ROOT / module.replace(".", "/")
    if (path / name).is_dir() or (path / f"{name}.py").is_file():
        return True
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.is_file() and name in _names(path)


@cache
def _names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case _:
                pass
    return names


def _texts() -> list[Path]:
    folders = (
        "sftrl_ext",
        "data_prep",
        "tests",
        "benchmarks",
        "configs",
        "recipes",
        "docs",
        "docker",
        "examples",
    )
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [
        path
        for path in [*paths, *(ROOT / name for name in ("Makefile", "README.md", "pyproject.toml"))]
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".j2") or path.name in ("Makefile", "Dockerfile")
    ]


def _is_defined(name: str) -> bool:
    """True for a module, and for a name that stands in the text of the module before it."""
    if name in ENTRY_POINT_GROUPS:
        return True
    module, rest = name, ""
    while module not in modules():
        module, _, rest = module.rpartition(".")
    return not rest or re.search(rf"\b{rest}\b", modules()[module].read_text(encoding="utf-8")) is not None
