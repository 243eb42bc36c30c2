"""Plug-ins: modules, files and files of packages, what they register, their digests, and faults in them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from sftrl_ext import plugins
from sftrl_ext.cli import main
from sftrl_ext.envs.general_points.prompts import TEMPLATES, load_template
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.launchers import LAUNCHERS, make_job
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.plugins import (
    VARIABLE,
    absolute_name,
    load_plugins,
    plugin_digests,
    plugin_env,
    plugin_faults,
)
from sftrl_ext.reward_fns import REWARDS
from sftrl_ext.training.engine_settings import LOSSES
from tests.plugin_state import forgotten_plugins

RULE = """\
from sftrl_ext.envs.general_points.rules import Rule, register_rule

register_rule(Rule("{name}", jack=3, queen=3, king=3))
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with forgotten_plugins(RULES, REWARDS, TEMPLATES):
        yield


def write(folder, files):
    """Write files by their path in a folder, which is returned."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_a_file_registers_once_and_says_what(tmp_path):
    file = str(write(tmp_path, {"mine.py": RULE.format(name="plug_3")}) / "mine.py")
    [plugin] = load_plugins([file])
    assert [(entry.kind, entry.name) for entry in plugin.registered] == [("card rule", "plug_3")]
    assert plugin.version is None and RULES["plug_3"].jack == 3
    assert load_plugins([file]) == [plugin]


def test_what_is_ours_is_not_the_plugins(tmp_path):
    """The first import of one of our registries, from a plug-in, registers what it holds."""
    text = "import data_prep.virl_splits\nimport sftrl_ext.reward_fns\n" + RULE.format(name="plug_3")
    write(tmp_path, {"mine.py": text})
    code = (
        "from sftrl_ext.plugins import load_plugins\n"
        "[plugin] = load_plugins(['mine.py'])\n"
        "print([entry.name for entry in plugin.registered])\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "['plug_3']\n", done.stderr


def test_a_file_imports_those_beside_it_and_they_count(tmp_path):
    text = "from beside_mine import NAME\n" + RULE.format(name="plug_3")
    write(tmp_path, {"mine.py": text, "beside_mine.py": "NAME = 1\n", "alone.py": "x = 1\n"})
    names = [str(tmp_path / "mine.py")]
    before = plugin_digests(names)
    (tmp_path / "alone.py").write_text("x = 2\n")
    assert plugin_digests(names) == before
    (tmp_path / "beside_mine.py").write_text("NAME = 2\n")
    assert plugin_digests(names) != before


def test_a_file_of_a_package_is_imported_as_its_module(tmp_path):
    task = "from .names import NAME\n" + RULE.format(name="plug_3")
    files = {"__init__.py": "", "names.py": "NAME = 1\n", "task.py": task}
    write(tmp_path, {f"plug_package/{name}": text for name, text in files.items()})
    [plugin] = load_plugins([str(tmp_path / "plug_package" / "task.py")])
    assert plugin.module is sys.modules["plug_package.task"] and RULES["plug_3"]
    before = plugin.digest
    (tmp_path / "plug_package" / "words.yaml").write_text("a: 1\n")
    assert plugin.digest != before
    [again] = load_plugins(["plug_package.task"])
    assert again.module is plugin.module


def test_a_template_of_a_plugin_has_a_name_and_counts(tmp_path):
    text = (
        "from pathlib import Path\n"
        "from sftrl_ext.envs.general_points.prompts import TEMPLATES\n"
        "TEMPLATES.add('plug_words', Path(__file__).with_name('words.yaml'))\n"
    )
    words = "prompt: 'Make $target from $cards.'\nfeedback: {otherwise: 'No.'}\n"
    write(tmp_path, {"mine.py": text, "words.yaml": words})
    [plugin] = load_plugins([str(tmp_path / "mine.py")])
    assert load_template("plug_words").texts["prompt"].template == "Make $target from $cards."
    before = plugin.digest
    (tmp_path / "words.yaml").write_text(words.replace("No", "Wrong"))
    assert plugin.digest != before


def test_an_entry_point_is_loaded_wherever_a_name_is_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write(tmp_path, {"plug_installed.py": RULE.format(name="plug_3")})))
    point = EntryPoint("mine", "plug_installed:anything", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: [point])
    monkeypatch.setattr(plugins, "_installed", plugins._installed.__wrapped__)
    assert RULES["plug_3"].king == 3
    assert set(plugin_digests()) == {"plug_installed"}


def test_the_variable_names_several(tmp_path, monkeypatch):
    write(tmp_path, {"a.py": RULE.format(name="plug_3"), "b.py": RULE.format(name="plug_4")})
    names = [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    monkeypatch.setenv(VARIABLE, plugin_env(names)[VARIABLE])
    assert [plugin.name for plugin in load_plugins()] == names
    assert plugin_env([]) == {}


def test_a_body_may_look_up_a_name_that_is_missing(tmp_path):
    lookup = "try:\n    REWARDS['none']\nexcept ValueError:\n    pass\n"
    write(tmp_path, {"mine.py": "from sftrl_ext.reward_fns import REWARDS\n" + lookup})
    assert load_plugins([str(tmp_path / "mine.py")])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("import os\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f(:\n", 1, "SyntaxError: "),
        ("\n\nimport no_such_module_here\n", 3, "ModuleNotFoundError: No module named 'no_such_module_here'"),
        (RULE.format(name="all_5"), 3, "card rule 'all_5' is registered already"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, text, line, message):
    file = write(tmp_path, {"mine.py": text}) / "mine.py"
    for _ in range(2):  # the second time the same, not that its names are registered already
        with pytest.raises(SftrlError, match=rf"^plug-in {file}, line {line}: {message}"):
            load_plugins([str(file)])


def test_an_error_in_a_file_beside_it_names_that_one(tmp_path):
    write(tmp_path, {"mine.py": "import beside_mine\n", "beside_mine.py": "\nopen('/no/such')\n"})
    place = f"{tmp_path / 'beside_mine.py'}, line 2: FileNotFoundError"
    with pytest.raises(SftrlError, match=rf"^plug-in {tmp_path / 'mine.py'}: {place}"):
        load_plugins([str(tmp_path / "mine.py")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_plugin", "plug-in no_such_plugin: no such module .* expected an installed one"),
        ("no_such.py", r"plug-in .*/no_such\.py: no such file; expected a Python file"),
    ],
)
def test_one_that_is_not_there_is_named(name, message):
    with pytest.raises(SftrlError, match=f"^{message}"):
        load_plugins([name])


def test_another_package_of_that_name_is_refused(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write(folder, {"plug_twice/__init__.py": "", "plug_twice/task.py": ""})
    load_plugins([str(one / "plug_twice" / "task.py")])
    with pytest.raises(SftrlError, match=r"plug_twice\.task is imported from .*/one/.*; expected .*/two/"):
        load_plugins([str(two / "plug_twice" / "task.py")])


def test_a_file_is_looked_for_beside_the_recipe(tmp_path, monkeypatch):
    beside = tmp_path / "recipes"
    beside.mkdir()
    write(beside, {"mine.py": ""})
    monkeypatch.chdir(tmp_path)
    assert absolute_name("mine.py", beside) == str(beside / "mine.py")
    write(tmp_path, {"mine.py": ""})
    assert absolute_name("mine.py", beside) == str(tmp_path / "mine.py")
    assert absolute_name("a.module", beside) == "a.module"


def test_a_node_with_other_plugins_is_at_fault(tmp_path, monkeypatch):
    file = write(tmp_path, {"mine.py": "a = 1\n"}) / "mine.py"
    monkeypatch.setenv(VARIABLE, str(file))
    expected = plugin_digests()
    assert plugin_faults(expected) == []
    file.write_text("a = 2\n")
    [fault] = plugin_faults({**expected})
    assert fault.startswith(f"plug-in {file}: found digest ")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.py"))
    [missing, *_] = plugin_faults(expected)
    assert missing == f"plug-in {tmp_path / 'gone.py'}: no such file; expected a Python file."


def test_losses_and_launchers_of_a_plugin_compose(tmp_path):
    text = (
        "from sftrl_ext.experiments.cluster.launchers import LAUNCHERS, Submission\n"
        "from sftrl_ext.training.engine_settings import LOSSES, SFTLoss\n"
        "LOSSES.add('plug_focal', SFTLoss(lambda log_p: (log_p.exp() - 1) * log_p, anchored=True))\n"
        "LAUNCHERS.add('plug_ssh', lambda job: Submission((job.config.options['host'], *job.driver)))\n"
    )
    plugin = str(write(tmp_path, {"mine.py": text}) / "mine.py")
    words = ["arms.sft.loss=plug_focal", "arms.sft.kl_coef=0.2", "launcher.options.host=far"]
    with forgotten_plugins(LOSSES, LAUNCHERS):
        recipe = load_recipe("fig6_gp_l", "smoke", words, "plug_ssh", [plugin])
        assert LAUNCHERS[recipe.launcher.name](make_job(recipe, "fig6_gp_l", words, None)).command[0] == "far"
        env = next(stage.env for stage in make_plan(recipe, tmp_path) if stage.arm == "sft")
        assert env["SFTRL_SFT_LOSS"] == "plug_focal" and env["SFTRL_KL_COEF"] == "0.2"
        assert env[VARIABLE] == plugin and recipe.plugins == [plugin]
    with pytest.raises(SftrlError, match=r"unknown launcher 'slrum'\. Did you mean 'slurm'"):
        load_recipe("fig6_gp_l", "smoke", launcher="slrum")


def test_a_launcher_hands_a_plugin_on(tmp_path, monkeypatch, capsys):
    write(tmp_path, {"mine.py": ""})
    monkeypatch.chdir(tmp_path)
    assert (
        main(["plan", "fig6_gp_l", "--scale", "cluster", "--launcher", "slurm", "--plugin", "mine.py"]) == 0
    )
    assert f"--plugin={tmp_path / 'mine.py'}" in capsys.readouterr().out
