"""Run a function on a module right after its first import, without importing it now.

verl loads plugins at the end of ``import verl``, in every process. Importing there what a plugin wants to
register with would cost each process several seconds, and an error would be swallowed. A function registered
here costs nothing until verl itself imports the module, and an error in it is raised from that import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Visitor = Callable[[ModuleType], None]


class _Finder(MetaPathFinder):
    """Finds nothing itself: adds the visitors to the loader that the other finders give."""

    def __init__(self) -> None:
        self.visitors: dict[str, list[Visitor]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Taken out first: the search below comes here again, and must then pass to the other finders.
        visitors = self.visitors.pop(name, None)
        if not visitors:
            return None
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_visit(module: ModuleType) -> None:
            execute(module)
            for visit in visitors:
                visit(module)

        spec.loader.exec_module = execute_then_visit  # type: ignore[method-assign]
        return spec


_finder = _Finder()


def after_import(name: str, visit: Visitor) -> None:
    """Call ``visit(module)`` once the module ``name`` has been executed; at once if it has been already.

    Args:
        name: Full name of the module, for example ``verl.utils.model``.
        visit: Called with the module. What it raises is raised by the import.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if module is not None and not getattr(spec, "_initializing", False):
        visit(module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.visitors.setdefault(name, []).append(visit)
