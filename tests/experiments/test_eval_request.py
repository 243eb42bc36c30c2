"""Where `sftrl eval` finds a model: a folder, a checkpoint folder of verl, or the hub (here: its cache)."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("verl")

import torch
from huggingface_hub import constants

from sftrl_ext.backends.model_folder import load_model
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoints import LATEST
from sftrl_ext.experiments.eval_request import local_model
from sftrl_ext.experiments.model_source import is_hub_name
from tests.backends.ascii_models import text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_model(tmp_path_factory.mktemp("model") / "tiny")


def test_a_folder_and_the_newest_checkpoint_of_verl(folder, tmp_path):
    with local_model(str(folder), "float32") as found:
        assert found == folder
    for step in (5, 10, 15):
        shutil.copytree(folder, tmp_path / f"global_step_{step}" / "actor" / "huggingface")
    (tmp_path / LATEST).write_text("10")  # the last one is not whole
    with local_model(str(tmp_path), "float32") as found:
        assert found == tmp_path / "global_step_10" / "actor" / "huggingface"
    with (
        pytest.raises(SftrlError, match=r"neither a Hugging Face folder"),
        local_model(str(tmp_path / "nothing"), "float32"),
    ):
        pass


def test_a_hub_name_is_fetched_as_a_run_fetches_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    with local_model("owner/tiny", "float32") as found:
        own, fetched = load_model(folder, torch.float32), load_model(found, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), fetched.parameters(), strict=True))
    assert not found.exists()
    with (
        pytest.raises(SftrlError, match=r"owner/other: no such folder here, and as a name of the hub: .*"),
        local_model("owner/other", "float32"),
    ):
        pass
    (tmp_path / "owner" / "tiny").mkdir(parents=True)
    assert is_hub_name("owner/other") and not is_hub_name("owner/tiny")
