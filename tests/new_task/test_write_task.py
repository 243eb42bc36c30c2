"""Packages that `sftrl new task` writes: whole, working, and never over something that is there."""

from __future__ import annotations

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.new_task import FILES, write_task


def test_every_file_is_written(tmp_path):
    assert main(["new", "task", "my_sums", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "my_sums"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {target.format(name="my_sums") for target in FILES.values()}


def test_its_entry_point_is_the_plugin_of_its_recipe(tmp_path):
    tomllib = pytest.importorskip("tomllib")
    write_task("my_sums", tmp_path)
    project = tomllib.loads((tmp_path / "my_sums" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["sftrl.plugins"] == {"my_sums": "my_sums.task"}
    assert "plugins: [my_sums/task.py]\n" in (tmp_path / "my_sums" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Task", "'My-Task' is no name for a task; expected small letters"),
        ("class", "'class' is no name"),
        ("json", "'json' is the name of an installed module"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, message, tmp_path):
    with pytest.raises(SftrlError, match=message):
        write_task(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_kept(tmp_path):
    (tmp_path / "my_sums").mkdir()
    with pytest.raises(SftrlError, match="my_sums: exists already"):
        write_task("my_sums", tmp_path)
