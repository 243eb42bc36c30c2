import errno
import os
from pathlib import Path

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import Registry, SftrlError, unknown_name
from sftrl_ext.files import (
    append_lines,
    drop_torn_tail,
    read_json,
    read_jsonl,
    read_yaml,
    replacing,
    write_json,
    write_text,
)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_bad_files_are_named(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(SftrlError, match=r"bad\.json"):
        read_json(bad)
    with pytest.raises(SftrlError, match="no such file"):
        read_json(tmp_path / "none.json")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(SftrlError, match=r"lines\.jsonl, line 2"):
        list(read_jsonl(lines))


@pytest.mark.parametrize("text", ["a: [", "\x00", "a: 2020-99-99", "[" * 5000, "{a: b: c}", "\ud800"])
def test_broken_yaml_is_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SftrlError, match=r"bad\.yaml: not a YAML file"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "\ud800"])
def test_json_that_python_cannot_hold_is_named(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SftrlError, match=r"bad\.json: not a JSON file"):
        read_json(path)


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    with pytest.raises(OSError, match="No space"), replacing(path) as temporary:
        temporary.write_text("new")
        full_disk()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    append_lines(path, [{"x": 1}])
    write = os.write

    def half(descriptor, data):
        monkeypatch.setattr(os, "write", full_disk)
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        append_lines(path, [{"x": 2}])
    assert path.read_text() == '{"x": 1}\n'


def test_an_error_of_the_operating_system_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert main(["data", "rl", "--rows", "2", "--out", str(tmp_path / "file" / "a.parquet")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path / 'file'}: File exists.\n"

    def unwritable(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.parquet")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", unwritable)
    assert main(["data", "rl", "--rows", "2", "--out", str(tmp_path / "b.parquet")]) == 2
    assert capsys.readouterr().err == "error: a.parquet: No space left on device.\n"
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "file"]


def test_a_torn_last_line_can_be_dropped(tmp_path):
    lines = tmp_path / "lines.jsonl"
    write_text(lines, '{"a": 1}\n{"b": ')
    assert list(read_jsonl(lines, torn_tail=True)) == [{"a": 1}]
    drop_torn_tail(lines)
    assert lines.read_text() == '{"a": 1}\n'


def test_a_registry_names_the_nearest_and_keeps_its_own():
    registry: Registry[int] = Registry("thing")
    registry.add("alpha", 1)
    registry.add("alpha", 1)
    with pytest.raises(SftrlError, match="registered already"):
        registry.add("alpha", 2)
    with pytest.raises(SftrlError, match="unknown thing 'alpho'. Did you mean 'alpha'"):
        registry["alpho"]
    assert "alpha" in registry
    assert list(registry) == ["alpha"]
    assert "(none)" in str(unknown_name("x", "y", []))
