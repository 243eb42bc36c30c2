"""The terminal's episode viewer."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
from rich.console import Console

from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_jsonl
from sftrl_ext.reports import build_report, show_episodes
from tests.reports.synthetic_run import make_run

PICTURED = make_facts(["K♠", "5♣", "2♠", "4♣"], settings=PlaySettings(modality="image"))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), points=2, splits=("id", "rule_ood"))


def shown(run_dir, **choice):
    out = io.StringIO()
    count = show_episodes(run_dir, Console(file=out, width=100), **choice)
    return count, out.getvalue()


def test_dialogue_with_verdicts(run_dir):
    count, text = shown(run_dir, arm="rl", split="rule_ood", solved=True, limit=1)
    assert count == 1
    assert "RL" in text and "rule_ood" in text and "step 8" in text
    assert "✗ wrong_numbers  -2" in text and "✓ correct  +5" in text
    assert "[synthetic] That uses <b>other numbers</b>" in text  # no markup is read into a model's text


def test_last_step_unless_told(run_dir):
    assert "step 100" in shown(run_dir, arm="sft")[1]
    assert "step 50" in shown(run_dir, arm="sft", step=50)[1]
    count, text = shown(run_dir, limit=2)
    assert count == 2 and "more episodes fit" in text


def test_wrong_names_get_the_near_one(run_dir):
    with pytest.raises(SftrlError, match="Did you mean 'rule_ood'"):
        shown(run_dir, split="rule_od")
    with pytest.raises(SftrlError, match="unknown arm"):
        shown(run_dir, arm="dpo")
    with pytest.raises(SftrlError, match="stored steps"):
        shown(run_dir, step=7)


def changed(run_dir, folder, change):
    """A copy of a run with other episodes."""
    copy = shutil.copytree(run_dir, folder)
    path = copy / "eval" / "episodes.jsonl"
    episodes = [{**line, **change} for line in read_jsonl(path)]
    path.write_text("".join(json.dumps(episode) + "\n" for episode in episodes))
    return copy


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b1m\u202e\ud800"


def test_no_escape_of_a_model_reaches_terminal_or_page(run_dir, tmp_path):
    pytest.importorskip("matplotlib")
    messages = [
        {"role": f"user{ESCAPES}", "content": f"a {ESCAPES}"},
        {"role": "assistant", "content": ESCAPES},
    ]
    attempts = [{"outcome": f"wrong{ESCAPES}", "reward": 1.0}]
    facts = {f"key{ESCAPES}": f"value{ESCAPES}"}
    foreign = changed(
        run_dir,
        tmp_path / "run",
        {"split": f"id{ESCAPES}", "messages": messages, "attempts": attempts, "facts": facts},
    )
    _, text = shown(foreign, limit=3, out=tmp_path / "page.html")
    build_report(foreign)
    pages = [tmp_path / "page.html", foreign / "report" / "report.md", foreign / "report" / "report.html"]
    for page in (text, *(path.read_text(encoding="utf-8") for path in pages)):
        assert "␛[2J␛]0;owned␇" in page
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)


@pytest.mark.parametrize("evil", ["../../../evil", "/tmp/evil", "a/../../evil", "..", "x" * 300, "C:\\evil"])
def test_names_of_a_foreign_run_stay_in_the_folder(run_dir, tmp_path, evil):
    pytest.importorskip("matplotlib")
    foreign = changed(run_dir, tmp_path / "run", {"split": evil, "facts": PICTURED})
    out, pictures = tmp_path / "a" / "b" / "out", tmp_path / "a" / "b" / "pictures"
    before = set(tmp_path.rglob("*"))
    shown(foreign, arm="rl", limit=1, out=out, pictures=pictures)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in written} == {out, pictures}
