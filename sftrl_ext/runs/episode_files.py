"""Files of single evaluations (``evals/*.jsonl``), read for the episode viewer.

The first line of a file holds its format and the settings of the evaluation, every further line an episode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_jsonl_lines
from sftrl_ext.runs.records import SampleEpisode
from sftrl_ext.runs.typed_json import from_json

FORMAT = "sftrl-episodes-1"


def read_episode_file(path: Path) -> list[SampleEpisode]:
    """Episodes of a file, as those of an arm with the name of the evaluated model.

    An episode that ended with an error and was played again counts once, by its last line.

    Raises:
        SftrlError: naming file and line, if it is no such file.
    """
    lines = read_jsonl_lines(path, lambda: None)
    _, head = next(lines, (0, None))
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        found = head.get("format") if isinstance(head, dict) else head
        raise SftrlError(f"{path}: expected a file of episodes ({FORMAT}), found {str(found)[:60]!r}.")
    arm = Path(str(head.get("model") or path.stem)).name
    episodes: dict[tuple[Any, Any], SampleEpisode] = {}
    for number, line in lines:
        stored = {**line, "arm": arm, "stage": arm} if isinstance(line, dict) else line
        episode = from_json(SampleEpisode, stored, f"{path}, line {number}")
        if line.get("error") is None:
            episodes[line.get("set"), line.get("index")] = episode
    return list(episodes.values())
