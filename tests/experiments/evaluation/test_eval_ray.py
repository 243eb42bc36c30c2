"""The Ray that an evaluation starts, in a process of its own."""

import subprocess
import sys

import pytest

pytest.importorskip("ray")

SCRIPT = """
import subprocess
from sftrl_ext.experiments.evaluation.workers import connected_ray
from sftrl_ext.experiments.recipe.recipe_files import load_recipe

with connected_ray(load_recipe("fig6_gp_l", "smoke"), 1):
    assert subprocess.run(["false"]).returncode == 1
assert subprocess.run(["false"]).returncode == 1
"""


@pytest.mark.e2e
def test_exit_statuses_of_children_are_those_they_had():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
