import pytest

from sftrl_ext.errors import Registry, SftrlError, unknown_name
from sftrl_ext.files import drop_torn_tail, read_json, read_jsonl, write_json, write_text


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
