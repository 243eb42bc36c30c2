"""The verdict and the numbers of a run on the console."""

import io

from rich.console import Console

from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.outcome import print_outcome
from tests.reports.synthetic_run import make_run


def test_a_run_ends_with_its_verdict_and_its_numbers(tmp_path):
    run_dir = make_run(tmp_path / "run", points=2, splits=("id", "rule_ood"))
    out = io.StringIO()
    print_outcome(run_dir, Console(file=out, soft_wrap=True, emoji=False))
    verdict, title, header, *rows = [line for line in out.getvalue().splitlines() if line.strip()]
    assert verdict == analyse(run_dir).verdict.headline
    assert title.strip() == "Success ± SE in percent"
    assert header.split()[:6] == ["Arm", "lr", "Step", "Seeds", "id", "rule_ood"]
    assert {"SFT", "RL"} <= {row.split()[0] for row in rows}


def test_a_run_without_records_says_why_there_is_no_verdict(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    out = io.StringIO()
    print_outcome(tmp_path, Console(file=out, soft_wrap=True))
    assert out.getvalue().startswith("No verdict")
