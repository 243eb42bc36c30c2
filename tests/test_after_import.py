"""A visitor runs once, right after the module's first import, and its errors are raised from there."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

from sftrl_ext.after_import import after_import


@pytest.fixture
def module_name(tmp_path, monkeypatch):
    """A package with one module that nobody has imported."""
    name = f"visited_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "inner.py").write_text("VALUE = 1\n\ndef function():\n    return VALUE\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield f"{name}.inner"
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


def test_visits_once_after_the_import(module_name):
    seen = []
    after_import(module_name, lambda module: seen.append(module.VALUE))
    after_import(module_name, lambda module: setattr(module, "VALUE", 2))
    assert seen == [] and module_name not in sys.modules
    module = importlib.import_module(module_name)
    importlib.import_module(module_name)
    assert seen == [1] and module.function() == 2
    assert "return VALUE" in inspect.getsource(module.function)


def test_an_imported_module_is_visited_at_once(module_name):
    importlib.import_module(module_name)
    seen = []
    after_import(module_name, lambda module: seen.append(module.VALUE))
    assert seen == [1]


def test_what_a_visitor_raises_comes_from_the_import(module_name):
    def refuse(module):
        raise ValueError("not this one")

    after_import(module_name, refuse)
    with pytest.raises(ValueError, match="not this one"):
        importlib.import_module(module_name)


def test_a_module_that_does_not_exist_is_still_not_found():
    after_import("sftrl_no_such_module", lambda module: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sftrl_no_such_module")
