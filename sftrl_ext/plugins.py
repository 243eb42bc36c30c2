"""Plug-ins: modules and Python files from outside the package that add to its registries.

Importing a plug-in registers what it defines: rules, splits, rewards, prompt templates, tasks, losses of SFT,
credit estimators, trackers, launchers. Three things name one:

* ``plugins: [module, file.py, ..]`` in a recipe, or ``--plugin`` on the command line;
* the variable ``SFTRL_PLUGINS``, which a run sets for all of its processes on all nodes;
* an entry point of an installed package in the group ``sftrl.plugins``.

A file inside a package is imported as the module it is there, any other as a module of its own that may
import files beside it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType

from sftrl_ext.errors import Registration, Registry, SftrlError
from sftrl_ext.files import import_file

ENTRY_POINTS = "sftrl.plugins"
"""Group of entry points whose modules are plug-ins."""

VARIABLE = "SFTRL_PLUGINS"
"""Environment variable with further plug-ins, separated as in ``PATH``."""

_OWN, _ROOT = ("sftrl_ext", "data_prep"), Path(__file__).resolve().parent.parent
_HASHED = ("*.py", "*.yaml")


@dataclass(frozen=True)
class Plugin:
    """An imported plug-in.

    Attributes:
        name: Module, or absolute path of a file.
        module: What the import gave.
        registered: Items that it, or what it imports, has registered.
    """

    name: str
    module: ModuleType
    registered: tuple[Registration, ...]

    @property
    def version(self) -> str | None:
        """Version of the installed distribution it belongs to; None for a file."""
        if self.name.endswith(".py"):
            return None
        top = self.module.__name__.partition(".")[0]
        for distribution in importlib.metadata.packages_distributions().get(top, ()):
            return importlib.metadata.version(distribution)
        return None

    @property
    def digest(self) -> str:
        """Digest of its version and code: of a package, or of a file and those it imports and registers."""
        digest = hashlib.sha256(str(self.version).encode())
        templates = {entry.name: entry.item for entry in self.registered if isinstance(entry.item, Path)}
        for name, path in sorted({**_code_files(self), **templates}.items()):
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
        return digest.hexdigest()[:32]


_loaded: dict[str, Plugin | SftrlError] = {}
_loading: list[str] = []


def load_plugins(names: Sequence[str] = ()) -> list[Plugin]:
    """Import the plug-ins of entry points, of `VARIABLE` and of ``names``, each once in a process.

    Args:
        names: Modules, and paths of Python files.

    Raises:
        SftrlError: naming a plug-in that cannot be imported, with file and line.
    """
    if _loading:  # the body of a plug-in has looked up a name that is not registered yet
        return []
    requested = [*_installed(), *inherited_plugins(), *names]
    return [_load(name) for name in dict.fromkeys(map(absolute_name, requested))]


@cache
def _installed() -> tuple[str, ...]:
    return tuple(point.module for point in importlib.metadata.entry_points(group=ENTRY_POINTS))


def inherited_plugins() -> list[str]:
    """Plug-ins that `VARIABLE` names."""
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def plugin_env(names: Sequence[str]) -> dict[str, str]:
    """Variables of a process that is to load some plug-ins; none where there are none."""
    return {VARIABLE: os.pathsep.join(names)} if names else {}


def plugin_digests(names: Sequence[str] = ()) -> dict[str, str]:
    """Name to digest of every plug-in that `load_plugins` gives."""
    return {plugin.name: plugin.digest for plugin in load_plugins(names)}


def plugin_faults(expected: Mapping[str, str]) -> list[str]:
    """Differences between the plug-ins of this process and those of another, as `plugin_digests` gives them.

    A plug-in that cannot be imported here is one of them.
    """
    try:
        digests = plugin_digests()
    except SftrlError as error:
        return [str(error)]
    pairs = {name: (digests.get(name), expected.get(name)) for name in {**expected, **digests}}
    return [
        f"plug-in {name}: found digest {digest}, expected {other}"
        for name, (digest, other) in sorted(pairs.items())
        if digest != other
    ]


def absolute_name(name: str, folder: Path | None = None) -> str:
    """Name of a plug-in, valid in any working folder; a module's name stays as it is.

    Args:
        name: A module, or the path of a Python file.
        folder: Folder in which a file is looked for that the working folder lacks.
    """
    if not name.endswith(".py"):
        return name
    path = Path(name).expanduser()
    beside = path if folder is None else folder / path
    return str((beside if not path.exists() and beside.exists() else path).resolve())


def _load(name: str) -> Plugin:
    if name not in _loaded:
        first = len(Registry.added)
        _loading.append(name)
        try:
            module = _import(name)
        except Exception as error:  # noqa: BLE001 - a user's code raises anything
            _loaded[name] = _import_error(name, error)
        else:
            added = Registry.added[first:]
            registered = tuple(entry for entry in added if entry.module.partition(".")[0] not in _OWN)
            _loaded[name] = Plugin(name, module, registered)
        finally:
            _loading.pop()
    outcome = _loaded[name]
    if isinstance(outcome, SftrlError):
        raise outcome
    return outcome


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        module = importlib.import_module(name)
        if module.__file__ is None:
            raise SftrlError("found a folder without __init__.py; expected a module or a package.")
        return module
    path, dotted = Path(name), Path(name).stem
    folder = path.parent
    while (folder / "__init__.py").is_file():
        dotted, folder = f"{folder.name}.{dotted}".removesuffix(".__init__"), folder.parent
    for module in [*sys.modules.values()]:
        if getattr(module, "__file__", None) == name:
            return module
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for what the file imports from its folder
    if folder == path.parent:
        return import_file(path, "a plug-in")
    module = importlib.import_module(dotted)
    if Path(str(module.__file__)).resolve() != path:
        raise SftrlError(f"{dotted} is imported from {module.__file__}; expected {name}.")
    return module


def _import_error(name: str, error: Exception) -> SftrlError:
    """Error of a plug-in that cannot be imported, with the file and line of its own that failed."""
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return SftrlError(
            f"plug-in {name}: no such module ({error}); expected an installed one, one in PYTHONPATH, or the "
            "path of a .py file."
        )
    if not Path(name).exists() and name.endswith(".py"):
        return SftrlError(f"plug-in {name}: no such file; expected a Python file.")
    frames = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in frames if _is_code_of(name, frame.filename)]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (name, None)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    position = file if line is None else f"{file}, line {line}"
    prefix = position if file == name else f"{name}: {position}"
    kind = "" if isinstance(error, SftrlError) else f"{type(error).__name__}: "
    return SftrlError(f"plug-in {prefix}: {kind}{error}")


def _is_code_of(name: str, file: str) -> bool:
    """True if a file of a traceback belongs to the plug-in or its folder, and is none of ours."""
    if any(Path(file).is_relative_to(_ROOT / package) for package in _OWN):
        return False
    if name.endswith(".py"):
        return Path(file).is_relative_to(Path(name).parent)
    spec = importlib.util.find_spec(name.partition(".")[0])
    origin = None if spec is None else spec.origin
    if origin is None or not origin.endswith("__init__.py"):
        return file == origin
    return Path(file).is_relative_to(Path(origin).parent)


def _code_files(plugin: Plugin) -> dict[str, Path]:
    """Files of a plug-in's code by module name, or by their path in its package."""
    path = Path(str(plugin.module.__file__))
    top = path.parent
    if not (top / "__init__.py").is_file():
        # Of a module in a folder of many, such as site-packages, its own file alone.
        finder = ModuleFinder(path=[str(top)] if plugin.name.endswith(".py") else [], excludes=_OWN)
        finder.run_script(str(path))
        files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
        return {name: Path(file) for name, file in files.items() if file is not None}
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    return {str(file.relative_to(top)): file for pattern in _HASHED for file in top.rglob(pattern)}


Registry.on_missing = staticmethod(load_plugins)
