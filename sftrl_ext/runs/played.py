"""Tokens of the episodes that divergence is measured on: ``eval/played/<stage>@<step>.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.files import read_json, write_text

Turns = list[list[int]]
"""Token ids that the model wrote in each turn of an episode."""


def write_played(path: Path, episodes: Sequence[Turns]) -> None:
    """Store the tokens of the first instances of a split."""
    write_text(path, json.dumps(list(episodes)) + "\n")


def read_played(path: Path) -> list[Turns]:
    """Tokens that `write_played` stored, of each instance in order."""
    turns: list[Turns] = read_json(path)
    return turns
