"""The start model of a run: links to the weights, everything else that a model needs, and clear errors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, GenerationConfig

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import ModelConfig
from sftrl_ext.experiments.start_models import model_files
from sftrl_ext.experiments.start_models.pretrained import check_context, check_engine, fetch_model
from sftrl_ext.hf_folder import load_model, load_processor, model_class, parameter_count
from tests.backends.ascii_models import text_model
from tests.backends.tiny_vl import folder as vision_folder

VISION = ("qwen2_5_vl", "qwen3_vl", "mllama")
ENCODER = {"qwen2_5_vl": "visual", "qwen3_vl": "visual", "mllama": "vision_model"}


def source_of(kind: str, out: Path) -> Path:
    """A folder of our own to change: a model, its processor or tokenizer, and how it generates."""
    text_model(out) if kind == "llama" else shutil.copytree(vision_folder(kind), out)
    GenerationConfig(temperature=0.6, top_p=0.9, do_sample=True).save_pretrained(out)
    return out


def fetch(source: Path | str, out: Path, **options) -> Path:
    fetch_model(ModelConfig(name="m", path=str(source), dtype="bfloat16"), out, **options)
    return out


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, torch.float32).state_dict()


@pytest.mark.parametrize("kind", ["llama", *VISION])
def test_all_of_a_folder_is_there_and_no_weight_twice(kind, tmp_path):
    source = source_of(kind, tmp_path / "source")
    out = fetch(source, tmp_path / "run" / "start_model")
    before, after = weights_of(source), weights_of(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    name = "model.safetensors"
    assert (out / name).stat().st_ino == (source / name).stat().st_ino
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert GenerationConfig.from_pretrained(out).temperature == 0.6
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert parameter_count(out) == parameter_count(source)
    assert not out.with_name("start_model.partial").exists()
    if kind != "llama":
        assert any(f"model.{ENCODER[kind]}." in name for name in after)
        theirs, ours = AutoProcessor.from_pretrained(source), load_processor(out)
        assert type(ours) is type(theirs) and ours.chat_template == theirs.chat_template
        assert ours.image_processor.to_dict() == theirs.image_processor.to_dict()


@pytest.mark.parametrize("tied", [False, True])
def test_tied_embeddings_are_named_where_verl_reads_them(tied, tmp_path):
    """As Llama-3.2-Vision is stored, whose configuration class has no default for it."""
    source = source_of("mllama", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    del config["tie_word_embeddings"]
    config["text_config"]["tie_word_embeddings"] = tied
    (source / "config.json").write_text(json.dumps(config))
    assert not hasattr(AutoConfig.from_pretrained(source), "tie_word_embeddings")
    out = fetch(source, tmp_path / "out")
    assert AutoConfig.from_pretrained(out).tie_word_embeddings is tied


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl"])
def test_files_in_parts_are_linked_too_and_foreign_ones_left_out(kind, tmp_path):
    source = source_of(kind, tmp_path / "source")
    load_model(source, torch.float32).save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    (source / "model.safetensors").unlink()
    for path in (tmp_path / "parts").glob("model*"):
        path.rename(source / path.name)
    for name in ("consolidated.safetensors", "consolidated.00.pth", "README.md"):
        (source / name).write_bytes(b"not for us")
    out = fetch(source, tmp_path / "out")
    parts = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(parts) > 1
    assert all((out / part).stat().st_ino == (source / part).stat().st_ino for part in parts)
    assert not [*out.glob("consolidated*"), *out.glob("*.md")]
    assert weights_of(out).keys() == weights_of(source).keys()
    (source / parts[0]).unlink()
    with pytest.raises(SftrlError, match=rf"1 of the {len(parts)} files .* missing: {parts[0]}"):
        fetch(source, tmp_path / "again")


def refuse_links(*_):
    raise OSError("Invalid cross-device link")


def test_another_file_system_gets_symbolic_links_or_one_copy_for_all_nodes(tmp_path, monkeypatch):
    source = source_of("llama", tmp_path / "source")
    monkeypatch.setattr(model_files.os, "link", refuse_links)
    linked = fetch(source, tmp_path / "linked") / "model.safetensors"
    assert linked.is_symlink() and linked.resolve() == source / "model.safetensors"
    copied = fetch(source, tmp_path / "copied", portable=True) / "model.safetensors"
    assert not copied.is_symlink() and copied.read_bytes() == linked.read_bytes()


@pytest.mark.parametrize("kind", ["llama", "qwen3_vl"])
def test_an_older_format_is_loaded_and_saved(kind, tmp_path):
    source = source_of(kind, tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    config = ModelConfig(name="m", path=str(source), dtype="float32")
    assert "second copy" in fetch_model(config, tmp_path / "out")
    after = weights_of(tmp_path / "out")
    assert after.keys() == weights_of(source).keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights_of(source).items())
    assert GenerationConfig.from_pretrained(tmp_path / "out").temperature == 0.6


def test_a_template_of_the_processor_alone_serves_the_tokenizer_too(tmp_path):
    source = source_of("qwen2_5_vl", tmp_path / "source")
    template = (source / "chat_template.jinja").read_text()
    (source / "chat_template.jinja").unlink()
    (source / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert AutoTokenizer.from_pretrained(source).chat_template is None
    out = fetch(source, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    assert AutoProcessor.from_pretrained(out).chat_template == template


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def without_image_processor(folder: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".blocks.1.attn" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (without_template, r"no chat template: found Qwen2_5_VLProcessor and \w+ without one"),
        (without_image_processor, "no image processor"),
        (without_tokenizer, r"no tokenizer there; expected one of tokenizer\.json"),
        (without_weights, r"expected model\.safetensors.*found .*config\.json"),
        (without_a_layer, r"weights of Qwen2_5_VL\w+ are missing.*visual\.blocks\.1\.attn"),
    ],
)
def test_an_error_names_what_is_missing(broken, message, tmp_path):
    source = source_of("qwen2_5_vl", tmp_path / "source")
    broken(source)
    with pytest.raises(SftrlError, match=message) as error:
        fetch(source, tmp_path / "out")
    assert f"model.path {str(source)!r}" in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_no_weight_is_read_to_compare_names(tmp_path, monkeypatch):
    """Safetensors may say that a weight is of a size that no machine has."""
    source = source_of("llama", tmp_path / "source")
    config = AutoConfig.from_pretrained(source)
    config.vocab_size = 50_000_000
    config.tie_word_embeddings = False
    config.save_pretrained(source)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in model_class(config).from_config(config).state_dict().items()}
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 4 * shape.numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)  # a hole
    assert offset > 10e9
    used = fetch(source, tmp_path / "out") / "model.safetensors"
    assert used.stat().st_blocks * 512 < 1e6


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache that huggingface_hub reads offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub: Path, name: str, source: Path) -> Path:
    """Lay a folder down as the hub's cache does: blobs, and a snapshot of links to them."""
    cached = hub / f"models--{name.replace('/', '--')}"
    snapshot = cached / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (cached / "blobs").mkdir()
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abcd")
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(cached / "blobs" / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    return cached


@pytest.mark.parametrize("kind", ["llama", *VISION])
def test_a_hub_model_shares_the_blobs_of_the_cache(kind, hub, tmp_path):
    before = weights_of(source_of(kind, tmp_path / "source"))
    cached = cache(hub, "owner/tiny", tmp_path / "source")
    out = fetch("owner/tiny", tmp_path / "out")
    linked = out / "model.safetensors"
    assert not linked.is_symlink()
    assert linked.stat().st_ino in {path.stat().st_ino for path in (cached / "blobs").iterdir()}
    shutil.rmtree(hub)  # a cache is cleaned; the run goes on
    after = weights_of(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert kind == "llama" or load_processor(out).image_processor is not None


def test_what_the_cache_lacks_is_named(hub, tmp_path):
    with pytest.raises(SftrlError, match=r"path 'owner/none': .*HF_HUB_OFFLINE.*hf download owner/none"):
        fetch("owner/none", tmp_path / "out")
    source = source_of("llama", tmp_path / "source")
    without_weights(source)
    cache(hub, "owner/half", source)
    with pytest.raises(SftrlError, match=r"owner/half.*expected model\.safetensors"):
        fetch("owner/half", tmp_path / "out")
    with pytest.raises(SftrlError, match=r"no-such-folder: neither a Hugging Face folder"):
        fetch(tmp_path / "no-such-folder", tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "message"),
    [("GatedRepoError", "licence must be accepted.*HF_TOKEN"), ("RepositoryNotFoundError", "no such model")],
)
def test_what_the_hub_refuses_is_named(error, message, hub, tmp_path, monkeypatch):
    import httpx
    from huggingface_hub import HfApi, errors

    def refuse(*_, **__):
        response = httpx.Response(403, request=httpx.Request("GET", "https://hub"))
        raise getattr(errors, error)("refused", response=response)

    monkeypatch.setattr(HfApi, "repo_info", refuse)
    with pytest.raises(SftrlError, match=f"model.path 'owner/none': .*{message}"):
        fetch("owner/none", tmp_path / "out")


def test_an_engine_that_does_not_serve_the_family_is_refused():
    check_engine(vision_folder("mllama"), "hf")
    check_engine(vision_folder("qwen2_5_vl"), "vllm")
    with pytest.raises(
        SftrlError, match=r"vllm does not serve models of type mllama; expected scale.engine=hf"
    ):
        check_engine(vision_folder("mllama"), "vllm")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "mllama"])
def test_a_context_shorter_than_a_dialogue_is_refused(family):
    check_context(vision_folder(family), 1024)
    with pytest.raises(SftrlError, match=r"context has 1024 tokens; expected 1025.*max_response_length"):
        check_context(vision_folder(family), 1025)
