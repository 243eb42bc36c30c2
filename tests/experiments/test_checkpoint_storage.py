from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoint_storage import CheckpointKeeper
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.runs.checkpoints import LATEST

SHARDS = (
    "model_world_size_2_rank_1.pt",
    "optim_world_size_2_rank_0.pt",
    "extra_state_world_size_2_rank_0.pt",
)
CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)


def save_step(checkpoints: Path, step: int, *, whole: bool = True, shard_size: str = "5GB") -> Path:
    """A saved step of RL with actor and critic, as verl lays it out."""
    folder = checkpoints / f"global_step_{step}"
    for role in ("actor", "critic"):
        (folder / role).mkdir(parents=True)
        for shard in SHARDS:
            (folder / role / shard).write_bytes(b"x")
    torch.manual_seed(step)
    LlamaForCausalLM(CONFIG).save_pretrained(folder / "actor/huggingface", max_shard_size=shard_size)
    (folder / "data.pt").write_bytes(b"x")
    if whole:
        (checkpoints / LATEST).write_text(str(step))
    return folder


def shards_in(folder: Path) -> int:
    return len(list(folder.rglob("*_world_size_*.pt")))


def test_training_state_moves_with_the_newest_whole_step(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, "float32")
    first = save_step(tmp_path, 1)
    keeper.thin_out()
    assert shards_in(first) == 6
    second = save_step(tmp_path, 2, whole=False)  # being written: it is not the newest yet
    keeper.thin_out()
    assert (shards_in(first), shards_in(second)) == (6, 6)
    (tmp_path / LATEST).write_text("2")
    keeper.thin_out()
    assert (shards_in(first), shards_in(second)) == (0, 6)
    assert (first / "data.pt").exists() and (first / "actor/huggingface/model.safetensors").exists()


def test_all_training_states_are_kept_on_request(tmp_path: Path) -> None:
    folders = [save_step(tmp_path, step) for step in (1, 2)]
    CheckpointKeeper(tmp_path, "float32", "all").thin_out()
    assert [shards_in(folder) for folder in folders] == [6, 6]


@pytest.mark.parametrize("shard_size", ["5GB", "4KB"])
def test_weights_are_stored_in_the_recipes_type(tmp_path: Path, shard_size: str) -> None:
    folder = save_step(tmp_path, 1, shard_size=shard_size) / "actor/huggingface"
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    CheckpointKeeper(tmp_path, "bfloat16").thin_out()
    after = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert after.dtype == torch.bfloat16
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name].bfloat16()), name
    narrowed = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert narrowed < 0.8 * size  # headers stay
    assert not list(folder.glob("*.partial"))
    CheckpointKeeper(tmp_path, "bfloat16").thin_out()  # a second time changes nothing
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) == narrowed


def test_a_wider_type_is_not_made_up(tmp_path: Path) -> None:
    folder = save_step(tmp_path, 1) / "actor/huggingface"
    weights = load_file(folder / "model.safetensors")
    CheckpointKeeper(tmp_path, "float32").thin_out()
    assert all(
        torch.equal(tensor, weights[name]) for name, tensor in load_file(folder / "model.safetensors").items()
    )


def test_an_unknown_value_is_refused_with_the_nearest() -> None:
    with pytest.raises(SftrlError, match="Did you mean 'newest'"):
        load_recipe("fig6_gp_l", "node", ["scale.training_state=newst"])
