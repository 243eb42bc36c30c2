"""The Gymnasium environment ``sftrl/Rows-v0``: given rows of any task, one episode per row.

``gymnasium.make_vec`` vectorizes it; ``vectorization_mode="async"`` needs ``vector_kwargs={"shared_memory":
False}``, because dialogues have no fixed size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import Episode, Verdict
from sftrl_ext.envs.episode_env import EpisodeEnv, checked_options, verdict_info
from sftrl_ext.errors import SftrlError


class RowsEnv(EpisodeEnv[Episode]):
    """Plays rows; see the module.

    Observation and action are those of the tasks' own environments. The pictures of all rows have one size.

    Args:
        rows: Parquet file from ``sftrl data rl``, or the facts of its rows.

    Raises:
        SftrlError: if there are no rows, or facts of a task that is not registered.
    """

    def __init__(self, rows: str | Path | Sequence[Mapping[str, Any]]) -> None:
        self.facts = find_rows(str(rows)).facts if isinstance(rows, (str, Path)) else list(rows)
        if not self.facts:
            raise SftrlError("rows: found none; expected the facts of at least one episode.")
        self._index = 0
        images = make_episode(self.facts[0]).images()
        super().__init__(images[0].size if images else None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose a row.

        Args:
            seed: Seed of the choice.
            options: ``index``, the row's number.

        Raises:
            SftrlError: if an option is unknown or there is no such row.
        """
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(len(self.facts)))
        index = checked_options(options, ("index",)).get("index", chosen)
        if not isinstance(index, int) or not 0 <= index < len(self.facts):
            raise SftrlError(f"options['index'] is {index!r}; expected 0 to {len(self.facts) - 1}.")
        self._index = index
        self._episode = make_episode(self.facts[index])
        return self._observation(), self._info(None)

    def _info(self, verdict: Verdict | None) -> dict[str, Any]:
        episode = self.episode
        state = {"index": self._index, "attempt": len(episode.attempts), "solved": episode.solved}
        return {**state, **verdict_info(verdict)}
