"""Commands that install this package: every extra they name exists, and messages name the right command."""

import re
import subprocess
from pathlib import Path

import pytest

from sftrl_ext import paths

ROOT = Path(__file__).parents[1]
EXTRAS = re.compile(r"""(?:sftrl-ext|['"]\.|install_command\(['"])(?:\[|(?<=['"]))([a-z, -]+)(?:\]|['"]\))""")


def extras():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def tracked():
    """Text files of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout")
    endings = (".py", ".md", ".yaml", ".toml", "Makefile", "Dockerfile", ".j2")
    return [ROOT / name for name in listed.stdout.split() if name.endswith(endings)]


def test_every_extra_that_is_named_exists():
    known, named = extras(), {}
    for path in tracked():
        if path != Path(__file__) and path.is_file():
            for match in EXTRAS.findall(path.read_text(encoding="utf-8")):
                named.update(dict.fromkeys(match.split(","), path))
    assert {"cpu", "gpu", "endpoint", "train", "gguf", "dev"} <= named.keys()
    assert {extra: path for extra, path in named.items() if extra.strip() not in known} == {}


def test_the_environment_of_make_reproduce_evaluates_endpoints():
    [reproduce] = re.findall(r"^\$\(VENV\)/\.cpu:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert re.search(r"\[[^\]]*endpoint", reproduce)
    assert any(word.startswith("openai") for word in extras()["endpoint"])


def test_a_checkout_installs_itself_and_a_wheel_its_repository(tmp_path, monkeypatch):
    checkout = tmp_path / "clone"
    (checkout / "constraints").mkdir(parents=True)
    (checkout / "constraints/cpu.txt").touch()
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "_PACKAGE", checkout / "sftrl_ext")
    monkeypatch.chdir(checkout)
    assert paths.install_command("cpu") == "pip install -c constraints/cpu.txt -e '.[cpu]'"
    monkeypatch.chdir(tmp_path)
    assert paths.install_command("endpoint") == "pip install -e 'clone[endpoint]'"
    (checkout / "pyproject.toml").unlink()
    assert paths.install_command("endpoint") == 'pip install "sftrl-ext[endpoint] @ git+$SFTRL_REPO"'
    assert "export SFTRL_REPO=" in (ROOT / "README.md").read_text()
