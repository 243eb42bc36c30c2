"""The files load with the readers they are made for, verl's own data set classes among them."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.episode import PlaySettings

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    source = Source("id", settings=PlaySettings(template="compact"))
    builders = {"rl": rl_rows, "sft": sft_rows, "suboptimal": suboptimal_rows}
    for name, builder in builders.items():
        write_rows(folder / f"{name}.parquet", builder(source, 40))
    return {name: str(folder / f"{name}.parquet") for name in builders}


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer with a chat template, made here."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    special = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>"]
    model = tokenizers.models.BPE()
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, special_tokens=special, initial_alphabet=alphabet
    )
    inner.train_from_iterator([], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT
    )


def test_pandas(files):
    for name, path in files.items():
        frame = pd.read_parquet(path)
        assert len(frame) == 40
        facts = json.loads(frame["extra_info"][7]["facts"])
        assert make_episode(facts).messages() == list(frame["prompt"][7])
        assert (len(frame["messages"][7]) == 0) == (name == "rl")


def test_datasets(files):
    datasets = pytest.importorskip("datasets")
    parts = [datasets.load_dataset("parquet", data_files=path, split="train") for path in files.values()]
    whole = datasets.concatenate_datasets(parts)
    assert len(whole) == 120
    assert whole[0]["prompt"][0]["role"] == "user"


@pytest.mark.slow
def test_verls_rl_data_set(files, tokenizer):
    pytest.importorskip("verl")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    config = OmegaConf.create(
        {"max_prompt_length": 256, "filter_overlong_prompts": True, "return_raw_chat": True}
    )
    rows = RLHFDataset([files["rl"], files["sft"]], tokenizer, config)
    assert len(rows) == 80
    batch = collate_fn([rows[i] for i in range(4)])
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert set(batch["agent_name"]) == {"verifier"}
    facts = json.loads(batch["reward_model"][2]["ground_truth"])
    assert make_episode(facts).messages() == list(batch["raw_prompt"][2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "suboptimal"])
def test_verls_sft_data_set(files, tokenizer, name):
    pytest.importorskip("verl")
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    rows = MultiTurnSFTDataset(files[name], tokenizer, {"max_length": 2048})
    messages = pd.read_parquet(files[name])["messages"]
    for i in (0, 5, 39):
        row = rows[i]
        trained = tokenizer.decode(row["input_ids"][row["loss_mask"] == 1])
        answers = [message["content"] for message in messages[i] if message["role"] == "assistant"]
        assert trained == "".join(f"{answer}<|end|>" for answer in answers)
