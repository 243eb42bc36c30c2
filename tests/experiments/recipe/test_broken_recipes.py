"""A recipe or run folder with broken YAML ends in one line that names the file and the position."""

from __future__ import annotations

from operator import attrgetter

import pytest
import yaml

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
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


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (int(HUGE), "too large to convert to float"),
        ({}, r"times\.updates: \{\}; expected a number"),
        ([1], r"times\.updates: \[1\]; expected a number"),
    ],
)
def test_a_value_that_is_no_number_is_named(tmp_path, value, message):
    recipe = yaml.safe_load(find_recipe("fig6_gp_l").read_text())
    recipe["arms"]["rl"] = {"kind": "rl", "times": {"updates": value}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(SftrlError, match=rf"mine\.yaml: .*{message}"):
        load_recipe(tmp_path / "mine.yaml", "smoke")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("scale", "offload", "idel", "scale.offload: unknown value 'idel'. Did you mean 'idle'"),
        ("budget.dialogues", "betas", [[0.9], 0.98], r"betas: found \[\[0\.9\], 0\.98\]; expected numbers"),
    ],
)
def test_values_of_a_stored_recipe_that_no_command_can_hold(tmp_path, part, key, value, message):
    recipe = load_recipe("fig6_gp_l", "smoke")
    setattr(attrgetter(part)(recipe), key, value)
    with pytest.raises(SftrlError, match=message):
        make_plan(recipe, tmp_path)


def test_a_number_beyond_floats_in_the_recipe_of_a_run_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"budget: {{rl: {{lr: {HUGE}}}}}")
    with pytest.raises(SftrlError, match=r"recipe\.yaml: .*too large"):
        from_yaml(tmp_path / "recipe.yaml")
