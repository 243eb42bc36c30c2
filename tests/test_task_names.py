"""Tasks are named by their own code alone: the rest of the package goes through `TaskSpec`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sftrl_ext.envs import TASKS

ROOT = Path(__file__).parents[1] / "sftrl_ext"
OWNERS = ("envs", "reward_fns")


def names():
    """Every name of a task that ships, as a pattern of whole words."""
    specs = [TASKS[name] for name in TASKS]
    words = {
        word for spec in specs for word in (spec.name, *spec.data_sources.values(), *spec.titles.values())
    }
    return re.compile(rf"(?<![\w/])({'|'.join(sorted(words))}|generalpoints|v-irl)(?![\w])", re.I)


@pytest.mark.parametrize("room", sorted(path.name for path in ROOT.iterdir() if path.name not in OWNERS))
def test_no_room_but_the_tasks_own_names_a_task(room):
    pattern = names()
    files = [ROOT / room] if (ROOT / room).is_file() else sorted((ROOT / room).rglob("*.py"))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_the_pattern_finds_a_task():
    assert names().search('if task.kind == "virl":') and names().search(
        "import sftrl_ext.envs.general_points"
    )
