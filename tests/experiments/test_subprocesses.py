import os
import subprocess
import sys
import time

import psutil
import pytest

from sftrl_ext.experiments.subprocesses import MARK, kill_leftovers, run_child, tail
from sftrl_ext.files import write_json


def test_a_child_runs_to_its_end_with_its_output_in_the_log(tmp_path):
    log, record = tmp_path / "log.txt", tmp_path / "process.json"
    code = "import os; print('out', os.environ['X']); import sys; sys.exit(3)"
    finished = run_child([sys.executable, "-c", code], env={"X": "7"}, log=log, record=record)
    assert finished.code == 3
    assert finished.wall_s > 0
    assert finished.peak_rss_mb > 0
    assert "out 7" in log.read_text()
    assert not record.exists()


def test_a_child_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    temp = tmp_path / "temp"
    monkeypatch.setenv("RAY_TMPDIR", str(temp))
    code = (
        "import os, tempfile; tempfile.mkdtemp(); open(os.path.join(tempfile.gettempdir(), 'a.lock'), 'w');"
        "os.mkdir(os.path.join(os.environ['RAY_TMPDIR'], 'ray')); print(os.environ['TMPDIR'])"
    )
    for own_temp, prefix in ((True, str(temp / "sftrl-stage-")), (False, "elsewhere")):
        if not own_temp:
            monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
            (tmp_path / "elsewhere").mkdir()
        log = tmp_path / f"{own_temp}.txt"
        child = run_child(
            [sys.executable, "-c", code], env={}, log=log, record=tmp_path / "p.json", own_temp=own_temp
        )
        assert child.code == 0 and prefix in log.read_text()
        assert (list(temp.iterdir()) == []) is own_temp


def test_the_temporary_folder_of_a_killed_run_is_removed_and_no_other(tmp_path):
    own, other = tmp_path / "sftrl-stage-x", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        write_json(tmp_path / "p.json", {"pid": 2**22 + 1, "created": 0.0, "temp": str(folder)})
        kill_leftovers(tmp_path / "p.json")
    assert not own.exists() and other.exists()


def test_an_interrupt_ends_the_whole_tree(tmp_path):
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}']); {sleep}"
    children = []

    def interrupt():
        import json

        record = json.loads((tmp_path / "p.json").read_text())
        tree = psutil.Process(record["pid"]).children()
        if tree:
            children.extend([record["pid"], *(p.pid for p in tree)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(
            [sys.executable, "-c", code],
            env={},
            log=tmp_path / "l",
            record=tmp_path / "p.json",
            on_poll=interrupt,
        )
    assert len(children) == 2
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in children)


def test_a_leftover_is_ended_and_a_reused_pid_is_not(tmp_path):
    record = tmp_path / "process.json"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    created = psutil.Process(child.pid).create_time()
    try:
        write_json(record, {"pid": child.pid, "created": created - 1000})
        assert not kill_leftovers(record)
        assert child.poll() is None
        write_json(record, {"pid": child.pid, "created": created})
        assert kill_leftovers(record)
        deadline = time.monotonic() + 20
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert child.poll() is not None
    finally:
        child.kill()


def test_tail_gives_the_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"{i}\n" for i in range(100)))
    assert tail(log, 3) == "97\n98\n99"
    assert tail(tmp_path / "none") == ""


def test_an_orphan_of_a_killed_stage_is_ended_too(tmp_path):
    """Its parent is gone and it has a session of its own: only its variables tell whose it is."""
    record, told = tmp_path / "process.json", tmp_path / "pid"
    inner = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
    )
    parent = subprocess.run([sys.executable, "-c", outer], env={**os.environ, MARK: str(record)}, check=True)
    assert parent.returncode == 0
    deadline = time.monotonic() + 30
    while not (told.is_file() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphan = psutil.Process(int(told.read_text()))
    write_json(record, {"pid": 2**22 - 1, "created": 0.0})
    assert kill_leftovers(record)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not kill_leftovers(record)
