"""A run at scale smoke, or whose arms solve nothing, gives no verdict: not on a page, not on the console."""

import io
import json

import pytest
from rich.console import Console

from sftrl_ext.reports import build_report
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.outcome import print_outcome
from tests.reports.synthetic_run import make_run, rewrite

CLAIMS = (
    "paper's pattern",
    "RL minus SFT on",
    "gains success",
    "loses success",
    "verdict flips",
)


def smoke(tmp_path):
    run_dir = make_run(tmp_path / "run", points=2, splits=("id", "rule_ood"))
    state = json.loads((run_dir / "state.json").read_text())
    (run_dir / "state.json").write_text(json.dumps({**state, "scale": "smoke"}))
    return run_dir


def unsolved(tmp_path):
    run_dir = make_run(tmp_path / "run", points=2, splits=("id", "rule_ood"))

    def none_solved(record):
        return {**record, "solved": 0, "solved_first": 0, "successes": None}

    rewrite(run_dir, lambda record: none_solved(record) if record["arm"] in ("sft", "rl") else record)
    return run_dir


@pytest.mark.parametrize(
    ("make", "reason"), [(smoke, "No verdict at scale smoke"), (unsolved, "no arm solves a single episode")]
)
def test_a_banner_stands_in_place_of_the_verdict(tmp_path, make, reason):
    run_dir = make(tmp_path)
    paths = build_report(run_dir)
    for page in (paths.markdown.read_text(), paths.html.read_text()):
        assert page.count(reason) == 1
        assert not [claim for claim in CLAIMS if claim in page]
    assert 'class="verdict none"' in paths.html.read_text()
    summary = json.loads(paths.summary.read_text())
    assert summary["verdict"]["pattern"] == "none" and reason in summary["verdict"]["headline"]
    assert summary["verdict"]["rl_minus_sft"]["points"] is not None
    assert summary["compute_axes"]["flips"] == []
    out = io.StringIO()
    print_outcome(run_dir, Console(file=out, soft_wrap=True))
    assert out.getvalue().count(reason) == 1 and "± " in out.getvalue()


def test_one_solved_episode_is_enough_for_a_verdict(tmp_path):
    run_dir = unsolved(tmp_path)
    rewrite(
        run_dir,
        lambda record: (
            {**record, "solved": 1} if (record["arm"], record["split"]) == ("rl", "id") else record
        ),
    )
    analysis = analyse(run_dir)
    assert analysis.no_claim is None and analysis.verdict.pattern != "none"
