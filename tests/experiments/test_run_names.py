"""Runs by the names of their recipes, and their states in a listing."""

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.locks import held
from sftrl_ext.experiments.run_names import find_run, list_runs
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState, StageState


def run(folder, *statuses):
    stages = [StageState(f"s{n}", "sft", status=status, wall_s=60.0) for n, status in enumerate(statuses)]
    RunState("fig6_gp_l", "smoke", stages=stages).save(RunLayout(folder).state)
    return folder


def test_every_name_of_a_recipe_finds_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laptop = run(tmp_path / "runs/fig6_gp_vl-laptop", "done").relative_to(tmp_path)
    for name in ("fig6_gp_vl", "fig7_gp_vl", "fig7_gp_vl-laptop", "runs/fig8_recognition-laptop"):
        assert find_run(type(laptop)(name)) == laptop
    assert find_run(laptop) == laptop
    missing = type(laptop)("runs/fig7_gp_vl-gpu")
    assert find_run(missing) == missing
    run(tmp_path / "runs/fig6_gp_vl-smoke", "done")
    with pytest.raises(SftrlError, match="found 2 runs"):
        find_run(type(laptop)("fig7_gp_vl"))


def test_a_listing_has_the_state_of_every_run(tmp_path, capsys):
    run(tmp_path / "a", "done", "done")
    run(tmp_path / "b", "done", "running")
    run(tmp_path / "c", "failed", "waiting")
    run(tmp_path / "d", "done", "waiting")
    run(tmp_path / "e", "waiting")
    run(tmp_path / "all/f", "done", "running")
    (tmp_path / "g").mkdir()
    (tmp_path / "g/state.json").write_text("{")
    with held(RunLayout(tmp_path / "all/f").lock):
        listed = {entry.folder.name: (entry.stages, entry.status) for entry in list_runs(tmp_path)}
        assert main(["list", "runs", str(tmp_path)]) == 0
    assert listed.pop("g")[1].startswith("unreadable: ")
    assert listed == {
        "a": ("2/2", "done"),
        "b": ("1/2", "interrupted (s1)"),
        "c": ("0/2", "failed (s0)"),
        "d": ("1/2", "interrupted before (s1)"),
        "e": ("0/1", "not begun"),
        "f": ("1/2", "running (s1)"),
    }
    assert "running (s1)" in capsys.readouterr().out


def test_the_other_lists_name_what_is_registered(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("fig8_recognition", "virl_outcome", "rule_ood", "face_11_12_13", "general_points"):
        assert name in printed
    assert main(["list", "runs", "nowhere"]) == 2
