"""Plug-ins in tests: loaded ones and what they registered are forgotten after a block."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sftrl_ext import plugins
from sftrl_ext.errors import Registry


@contextmanager
def forgotten_plugins(*registries: Registry) -> Iterator[None]:
    """Restore which plug-ins are loaded, the import path, and some registries."""
    items = [dict(registry._items) for registry in registries]
    loaded, path, modules = dict(plugins._loaded), list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        for registry, before in zip(registries, items, strict=True):
            registry._items = before
        plugins._loaded.clear()
        plugins._loaded.update(loaded)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if not name.startswith(("sftrl_ext", "data_prep")) and _is_of_a_test(name):
                del sys.modules[name]


def _is_of_a_test(name: str) -> bool:
    return "pytest-" in str(getattr(sys.modules[name], "__file__", None))
