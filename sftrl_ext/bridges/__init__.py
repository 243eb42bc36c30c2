"""Bridges to other libraries, one module per library: each plays an `Episode` made from the facts of a row.

No bridge knows a task. Importing this package registers `ROWS_ID` with Gymnasium.
"""

from __future__ import annotations

from types import ModuleType

from sftrl_ext.after_import import after_import

ROWS_ID = "sftrl/Rows-v0"
"""Gymnasium id of the environment that plays given rows of any task."""


def _register(gymnasium: ModuleType) -> None:
    if ROWS_ID not in gymnasium.registry:
        gymnasium.register(ROWS_ID, entry_point="sftrl_ext.bridges.gymnasium_rows:RowsEnv")


after_import("gymnasium", _register)
