"""A refactoring changes neither a report's numbers nor any command of any plan."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("verl")

from tests.golden.golden import FIGURES, SUMMARY, plans, report_of_stored_run, stored_plans


def test_the_report_of_a_stored_run_repeats(tmp_path: Path) -> None:
    summary, figures = report_of_stored_run(tmp_path / "run")
    assert figures == json.loads(FIGURES.read_text(encoding="utf-8"))
    assert summary == SUMMARY.read_text(encoding="utf-8")


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None, reason="attention: auto takes flash-attn here"
)
def test_every_plan_repeats() -> None:
    stored, made = stored_plans(), plans()
    assert made.keys() == stored.keys()
    for name, stages in made.items():
        assert stages == stored[name], name
