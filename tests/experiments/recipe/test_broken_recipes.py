"""A recipe or run folder with broken YAML ends in one line that names the file and the position."""

from __future__ import annotations

import pytest

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import find_recipe, from_yaml, load_recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not a YAML file: expected the node content.* at line 1, column 5"),
        ("\ttab: 1", "at line 1, column 1"),
        ("a: 1\nb: c: d", "mapping values are not allowed here at line 2, column 5"),
        ("name: !!python/object:os.system x", "could not determine a constructor"),
        ("\x00", "not a YAML file: unacceptable character"),
        ("\udcff", "not a YAML file: 'utf-8' codec"),
        ("{" * 3000, "not a YAML file"),
        ("[1, 2]", "expected a mapping of a recipe's keys, found list"),
        ("", "found NoneType"),
        ("defaults: 3", "defaults: expected a list, found int"),
        ("defaults: [1.5]", "Unsupported type in defaults"),
        ("defaults: [{}]", "Missing group name"),
        ("name: a\nname: b", "found duplicate key name at line 2, column 1"),
        ("a: &x [*x]", "a value in it holds itself"),
    ],
)
def test_a_broken_recipe_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SftrlError, match=rf"broken\.yaml: .*{message}"):
        load_recipe(path, "smoke")
    assert main(["plan", str(path), "--scale", "smoke"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mapping_is_no_name_of_a_split(tmp_path):
    text = find_recipe("fig6_gp_l").read_text() + "\ntask: {eval_splits: [id, {}]}\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SftrlError, match=r"mine\.yaml: task\.eval_splits: \{\} is not the name of a split"):
        load_recipe(tmp_path / "mine.yaml", "smoke")


@pytest.mark.parametrize("data", [b"{", b"\xff", b"a: [", b"", b"a: 1\na: 2"])
def test_the_broken_recipe_of_a_run_is_named(tmp_path, data):
    (tmp_path / "recipe.yaml").write_bytes(data)
    with pytest.raises(SftrlError, match=r"recipe\.yaml: "):
        from_yaml(tmp_path / "recipe.yaml")
