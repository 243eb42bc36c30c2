"""The documentation against the code: commands parse, paths and links lead somewhere, examples run.

An example is a fenced block with a comment before it, which the reader does not see:

``<!-- file: name -->``  the block is written to a file of that name
``<!-- run -->``         a block of Python or bash is run, all those of a page in order and in one folder
``<!-- run: package -->``  as `run`, where that package is installed (`make bridges`)
``<!-- prints -->``      the block is what the example before it prints

Blocks of bash without `run` say what they need instead:
their title, after the language, begins with ``needs``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_prep.build import kinds_of
from data_prep.options import CARDS, GIVEN
from data_prep.splits import get_split
from data_prep.task_rows import find_rows
from sftrl_ext.cli import _parse
from sftrl_ext.envs import TASKS
from sftrl_ext.envs.general_points.cards import RANKS, SUITS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.launchers import LAUNCHERS
from sftrl_ext.reward_fns import REWARDS
from sftrl_ext.training.engine_settings import LOSSES
from sftrl_ext.training.plugin_trackers import PLUGIN_TRACKERS
from tests.plugin_state import forgotten_plugins
from tests.reports.synthetic_run import make_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TREES = "configs|recipes|sftrl_ext|data_prep|tests|constraints|docker|benchmarks|docs|examples"
NAMED = re.compile(rf"(?<![\w/.-])(?:{TREES})/[\w./-]*(?P<open>[<*{{]?)")


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """(marks, language, text) of every fenced block."""
    for match in BLOCK.finditer(page.read_text()):
        yield (match["mark"] or "").strip(), match["language"], match["text"]


def commands(page):
    """Every line of a fenced block that calls sftrl, as words."""
    for _, language, text in blocks(page):
        if language in ("bash", "console", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words and Path(words[0]).name == "sftrl":
                    yield words[1:]


def test_there_is_something_to_check():
    assert sum(1 for page in PAGES for _ in commands(page)) > 40
    assert sum(mark == "run" for page in PAGES for mark, *_ in blocks(page)) > 8


USER_FILES = ("data.json", "prompts.parquet", "hands.csv", "routes.csv")
"""Files that a reader is to have in the working folder."""

USER_DECK = "my_cards"
"""Folder of card pictures that a reader is to have there."""


def put_user_files(page, folder):
    """Write what a reader of a page has in the working folder, what the page says to write there included."""
    for name in USER_FILES:
        (folder / name).touch()
    for mark, _, text in blocks(page):
        if mark.startswith("file:"):
            (folder / mark.removeprefix("file:").strip()).write_text(text)
    (folder / USER_DECK).mkdir()
    for rank in RANKS:
        for suit in SUITS:
            Image.new("RGB", (63, 88), "white").save(folder / USER_DECK / f"{rank}{suit}.png")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_parses_and_names_what_there_is(page, capsys, tmp_path, monkeypatch):
    put_user_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    with forgotten_plugins(REWARDS, LOSSES, LAUNCHERS, PLUGIN_TRACKERS):  # a page may register some
        for words in commands(page):
            try:
                args = _parse(words)
            except SystemExit as stop:
                # Only --help and --version end well.
                assert stop.code == 0, (
                    f"{name_of(page)}: sftrl {shlex.join(words)}: {capsys.readouterr().err}"
                )
                continue
            try:
                check_names(args)
            except SftrlError as error:
                raise AssertionError(f"{name_of(page)}: sftrl {shlex.join(words)}: {error}") from None


def check_names(args):
    """What the parser takes as any text: recipes with their overrides, kinds of rows, splits."""
    from sftrl_ext.cli_rehearse import recipes_to_rehearse
    from sftrl_ext.cli_run import recipes_of

    if hasattr(args, "recipe") and not args.recipe.startswith("my_"):
        args.overrides = [word for word in args.overrides if "<" not in word]
        # That all recipes compose at all scales is tested elsewhere.
        args.recipe = "fig6_gp_l,fig6_virl_vl" if args.recipe == "all" else args.recipe
        assert recipes_to_rehearse(args) if hasattr(args, "only_list") else recipes_of(args)
    if hasattr(args, "kind"):
        if args.task not in TASKS:  # one that the page itself defines
            return
        assert args.kind in kinds_of(args.task), args.kind
        if args.kind == GIVEN:
            return
        for split in args.split.split(","):
            assert get_split(split) if args.task == CARDS else split in find_rows(args.task).split_names()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in headings(target), f"{name_of(page)}: {link}"


def headings(page):
    """The anchors of a page, as mkdocs and forges make them."""
    found = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_the_repository_that_is_named_exists(page):
    for match in NAMED.finditer(page.read_text()):
        path = match[0].rstrip("<*{").rstrip(".")
        if match["open"]:
            path = path.rpartition("/")[0]
        assert (ROOT / path).exists(), f"{name_of(page)}: {match[0]}"


def needed_packages(mark):
    """Packages of a mark ``run: package``; none of ``run``."""
    return mark.partition(":")[2].split() if mark.startswith("run:") else []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_run_or_says_what_it_needs(page):
    for match in BLOCK.finditer(page.read_text()):
        if match["language"] in ("bash", "console", "sh"):
            is_run = (match["mark"] or "").partition(":")[0] == "run"
            has_needs = match["info"].strip().startswith('title="needs ')
            assert is_run != has_needs, f"{name_of(page)}:\n{match[0]}"


SFTRL_LINES = """
import glob, shlex, sys
from sftrl_ext.cli import main
for line in sys.stdin.read().replace("\\\\\\n", " ").splitlines():
    words = [w for word in shlex.split(line, comments=True)[1:] for w in sorted(glob.glob(word)) or [word]]
    if words and (code := main(words)):
        sys.exit(f"{line}: {code}")
"""
"""Runs lines that call sftrl in one process: most time of such a command is the start of one."""


def is_sftrl(text):
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return all(line.startswith("sftrl ") and not set("|<>;&") & set(line) for line in lines)


def put_run(page, folder):
    """Write the finished run, and the results, that the examples of a page read."""
    shown = "".join(text for mark, _, text in blocks(page) if mark == "run")
    if "runs/fig6_gp_l-laptop" in shown or "list runs" in shown:
        pytest.importorskip("matplotlib")
        make_run(folder / "runs" / "fig6_gp_l-laptop", points=2)
    if "results/" in shown:
        (folder / "results").symlink_to(ROOT / "results")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- run -->" in page.read_text()], ids=name_of)
def test_the_examples_run(page, tmp_path):
    if "import torch" in page.read_text():
        pytest.importorskip("torch")
    put_user_files(page, tmp_path)
    put_run(page, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    # Python blocks between two of bash are one program, so that a later one sees the names of an earlier one.
    programs: list[tuple[str, str]] = []
    expected: list[str] = []
    is_run = True
    for mark, language, text in blocks(page):
        if mark.startswith("file:"):
            (tmp_path / mark[len("file:") :].strip()).write_text(text)
        elif mark == "prints" and is_run:
            expected.append(text)
        elif mark.partition(":")[0] == "run":
            is_run = all(importlib.util.find_spec(package) for package in needed_packages(mark))
            if is_run and programs and language == "python" == programs[-1][0]:
                programs[-1] = (language, programs[-1][1] + "\n" + text)
            elif is_run:
                programs.append((language, text))
    printed = ""
    for language, text in programs:
        if language == "python":
            command = [sys.executable, "-c", text]
        elif is_sftrl(text):
            command = [sys.executable, "-c", SFTRL_LINES]
        else:
            shim = f'sftrl() {{ "{sys.executable}" -m sftrl_ext.cli "$@"; }}\n'
            command = ["bash", "-euo", "pipefail", "-c", shim + text]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, input=text, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{name_of(page)}:\n{text}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    for text in expected:
        assert text in printed, f"{name_of(page)}: expected\n{text}\nfound\n{printed}"


def test_the_names_of_the_extra_are_pinned():
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints/docs.txt").read_text(), re.M)
    for needed in extras["docs"]:
        assert re.match(r"[\w.-]+", needed)[0] in {name.lower() for name in pinned}


def test_every_name_of_the_api_page_exists_and_is_documented():
    page = (ROOT / "docs" / "api.md").read_text()
    entries = re.findall(r"^::: ([\w.]+)\n(?:    options: \{members: \[([^\]]*)\]\})?", page, re.M)
    assert len(entries) > 10
    for module, members in entries:
        path = ROOT / module.replace(".", "/")
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
        names = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert ast.get_docstring(tree) and {*filter(None, members.split(", "))} <= names, module


def test_the_page_of_the_command_line_has_every_verb(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("cli_page").cli_page()
    verbs = re.findall(r"^## sftrl (.*)$", page, re.M)
    assert len(verbs) == len({*verbs}) > 10 and "template from" in verbs and "publish" in verbs
    assert {words[0] for page in PAGES for words in commands(page)} - {"--help", "--version"} <= {
        verb.split()[0] for verb in verbs
    }
    rows = re.findall(r"^\| `.*$", page, re.M)
    assert "| `--to FOLDER` | needed | a new folder |" in rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in listed, page.name
