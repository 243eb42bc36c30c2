from __future__ import annotations

import subprocess
import sys

import pytest

from sftrl_ext.envs import Episode, count_markers, parse_facts
from sftrl_ext.errors import SftrlError


def test_facts_are_read():
    assert parse_facts('{"task": "x", "n": [1]}', "facts") == {"task": "x", "n": [1]}
    assert parse_facts("{}", "facts") == {}


@pytest.mark.parametrize("text", ["", "24", "{", "[1]", None, 3, "null", "[" * 100_000])
def test_what_are_no_facts_is_named(text):
    with pytest.raises(SftrlError, match="row 3: facts is .*; expected the JSON text of an episode's facts"):
        parse_facts(text, "row 3: facts")


def test_markers_of_the_assistant_do_not_count():
    messages = [
        {"role": "system", "content": "<image>"},
        {"role": "user", "content": "<image> and <image>"},
        {"role": "assistant", "content": "<image>"},
    ]
    assert count_markers(messages) == 3


def test_an_episode_has_no_pictures_unless_it_says_so():
    assert tuple(Episode.images(object())) == ()


def test_text_needs_no_pillow():
    code = (
        "import sys, gymnasium, sftrl_ext.envs;"
        "gymnasium.make('sftrl/GeneralPoints-v0').reset(seed=0);"
        "assert 'PIL' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "imports", ["import gymnasium, sftrl_ext.envs", "import sftrl_ext.envs, gymnasium", "import gymnasium"]
)
def test_gymnasium_knows_the_ids_whichever_is_imported_first(imports):
    env_id = "sftrl/GeneralPoints-v0" if "sftrl_ext" in imports else "sftrl_ext.envs:sftrl/GeneralPoints-v0"
    code = f"{imports}; print(gymnasium.make({env_id!r}).spec.id)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "sftrl/GeneralPoints-v0"


def test_episodes_of_text_need_no_gymnasium():
    code = (
        "import sys, sftrl_ext.envs as envs;"
        "assert not {'numpy', 'gymnasium'} & set(sys.modules);"
        "envs.make_episode({'task': 'general_points', 'cards': ['A', '2', '3', '4'], 'rule': 'face_10',"
        " 'target': 24});"
        "assert 'gymnasium' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
