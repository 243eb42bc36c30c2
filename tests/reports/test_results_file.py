"""Results files hold what the records say, and the table of recipes reads them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.results_file import results_of
from tests.reports.synthetic_run import make_run


def test_a_results_file_holds_the_numbers_of_the_records(tmp_path, capsys):
    run_dir = make_run(tmp_path / "run")
    assert main(["report", str(run_dir), "--results", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").iterdir()
    assert path.name in capsys.readouterr().out
    told = json.loads(path.read_text())
    records = [json.loads(line) for line in (run_dir / "eval" / "records.jsonl").read_text().splitlines()]
    every = told["measurements"][1]["rows"]
    for row in every:
        for split, percent in row["percent"].items():
            meant = [
                r
                for r in records
                if (r["arm"], r["step"], r["split"]) == (row["arm"], row["step"], split)
                and (row["lr"] is None or r["lr"] == row["lr"])
            ]
            episodes = sum(r["episodes"] for r in meant)
            assert percent == pytest.approx(100 * sum(r["solved"] for r in meant) / episodes, abs=0.051)
    compared = told["measurements"][0]["rows"]
    assert {row["arm"] for row in compared} >= {"init", "sft", "rl"}
    assert all(row in [{**one} for one in every] or row["seeds"] > 1 for row in compared)


def test_a_run_without_evaluated_checkpoints_has_no_results(tmp_path):
    run_dir = make_run(tmp_path / "run")
    (run_dir / "eval" / "records.jsonl").write_text("")
    with pytest.raises(SftrlError, match="no evaluated checkpoint"):
        results_of(analyse(run_dir))
