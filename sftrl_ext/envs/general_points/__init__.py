"""GeneralPoints: make a number, usually 24, from the numbers of a hand of cards.

Reading order: `cards`, `rules`, `families`, `solver`, `hands`, `formula`, `working`, `answer`, `verifier` and
`authors`, `prompts`, `render` (pictures of hands), `episode`, `env`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftrl_ext.envs.general_points.solver import solve
    from sftrl_ext.envs.general_points.verifier import grade

__all__ = ["TASK", "grade", "solve"]

TASK = "general_points"
"""Name of the task in facts."""


def __getattr__(name: str) -> Any:
    """Import the solver or the grader on its first use; composing a recipe needs neither."""
    if name == "solve":
        from sftrl_ext.envs.general_points.solver import solve

        return solve
    if name == "grade":
        from sftrl_ext.envs.general_points.verifier import grade

        return grade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
