"""Commit of a run, as it is stored and printed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import sftrl_ext
from sftrl_ext.runs.machine import describe_commit


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_changed_checkout_is_marked(monkeypatch, tmp_path):
    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *name, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    package = tmp_path / "sftrl_ext" / "__init__.py"
    package.parent.mkdir()
    monkeypatch.setattr(sftrl_ext, "__file__", str(package))
    assert describe_commit() == f"sftrl-ext {sftrl_ext.__version__}"
    package.write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    commit = git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "untracked").touch()
    assert describe_commit() == commit
    package.write_text("pass")
    assert describe_commit() == f"{commit}+changes"
