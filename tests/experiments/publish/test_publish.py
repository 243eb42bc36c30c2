"""A published run: cards for the hub's library, rows for `datasets`, and nothing half written."""

from __future__ import annotations

import json
import shutil
import tarfile

import pytest
from rich.console import Console

from data_prep.build import build_file
from data_prep.options import DataOptions
from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.publish import publish as publish_module
from sftrl_ext.experiments.publish.publish import publish_run
from sftrl_ext.files import read_json, write_json
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from tests.golden.golden import RUN

hub = pytest.importorskip("huggingface_hub")
STAGES = ("sft-lr0.0002-s0", "rl-lr0.0002-s0")
QUIET = Console(quiet=True)


@pytest.fixture
def run_dir(tmp_path):
    """The stored run, with two invented checkpoints of each arm and some rows of pictures."""
    folder = tmp_path / "run"
    with tarfile.open(RUN) as archive:
        archive.extractall(folder, filter="data")
    layout = RunLayout(folder)
    for stage in STAGES:
        for step in (1, 2):
            actor = "actor" if stage.startswith("rl") else ""
            model = layout.checkpoints(stage) / f"global_step_{step}" / actor / "huggingface"
            model.mkdir(parents=True)
            (model / "config.json").write_text("{}")
            (model / "model.safetensors").write_bytes(b"weights of step %d" % step)
            (model.parent / "optim_world_size_1_rank_0.pt").write_bytes(b"training state")
        (layout.checkpoints(stage) / LATEST).write_text("2")
    options = {"modality": "image", "image_size": "120x60", "rows": 3}
    build_file(DataOptions("sft", layout.rows("init"), **options))
    build_file(DataOptions("rl", layout.eval_rows("id"), eval=True, **options))
    return folder


def test_the_cards_are_those_of_the_hubs_library(run_dir, tmp_path):
    out = tmp_path / "out"
    publish_run(run_dir, out, QUIET)
    for stage in STAGES:
        card = hub.ModelCard.load(out / "models" / stage / "README.md")
        assert card.data.library_name == "transformers" and "sftrl-ext" in card.data.tags
        assert {result.metric_type for result in card.data.eval_results} == {"success_rate"}
        assert "| 1 |" in card.text and "| 2 |" in card.text and "scale `smoke`" in card.text
        assert "| Seed | 0 |" in card.text and "TFLOP" in card.text
    card = hub.DatasetCard.load(out / "data" / "README.md")
    assert {config["config_name"] for config in card.data.configs} == {"init", "eval-id"}
    assert card.data.size_categories == ["n<1K"]
    readme = (out / "README.md").read_text()
    assert f"hf upload <user>/fig6_gp_vl-smoke-data {out}/data --repo-type dataset" in readme
    assert "no checkpoints of the stage `base`" in readme
    assert read_json(out / "results" / "fig6_gp_vl-smoke.json")["recipe"] == "fig6_gp_vl"


def test_weights_are_not_stored_twice_and_training_state_stays_behind(run_dir, tmp_path):
    out = tmp_path / "out"
    publish_run(run_dir, out, QUIET)
    model = out / "models" / STAGES[1] / "step_2"
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]
    source = RunLayout(run_dir).checkpoints(STAGES[1]) / "global_step_2/actor/huggingface"
    assert (model / "model.safetensors").samefile(source / "model.safetensors")
    assert not (model / "config.json").samefile(source / "config.json")
    shutil.rmtree(run_dir)
    assert (model / "model.safetensors").read_bytes() == b"weights of step 2"


def test_embedded_pictures_are_pictures_to_datasets(run_dir, tmp_path):
    datasets = pytest.importorskip("datasets")
    publish_run(run_dir, tmp_path / "out", QUIET, embed=True)
    file = tmp_path / "out/data/init.parquet"
    features = datasets.Features.from_arrow_schema(publish_module.pq.read_schema(file))
    assert isinstance(features["images"].feature, datasets.Image)
    loaded = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["images"][0].size == (120, 60)


def test_an_interrupt_leaves_nothing_and_the_run_as_it_was(run_dir, tmp_path, monkeypatch):
    before = sorted(path.relative_to(run_dir) for path in run_dir.rglob("*"))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(publish_module.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_run(run_dir, tmp_path / "out", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sorted(path.relative_to(run_dir) for path in run_dir.rglob("*")) == before


def test_what_cannot_be_published_is_refused(run_dir, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    with pytest.raises(SftrlError, match="taken: exists already"):
        publish_run(run_dir, tmp_path / "taken", QUIET)
    state = read_json(run_dir / "state.json")
    state["stages"][-1]["status"] = "failed"
    write_json(run_dir / "state.json", state)
    assert main(["publish", str(run_dir), "--to", str(tmp_path / "out")]) == 2
    assert "is failed; expected a finished run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_of_text_files_alone_says_what_is_missing(tmp_path):
    with tarfile.open(RUN) as archive:
        archive.extractall(tmp_path / "run", filter="data")
    publish_run(tmp_path / "run", tmp_path / "out", QUIET)
    readme = (tmp_path / "out/README.md").read_text()
    assert "no parquet files of rows" in readme and "sftrl report" in readme and "hf upload" in readme
    assert json.loads((tmp_path / "out/results/state.json").read_text())["scale"] == "smoke"
