"""The supervised data set: verl's tokens and masks, the rollout's prompts, and only the turns a row names."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("verl")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.player import Limits, play
from sftrl_ext.rollout.tokens import chat_tokens
from sftrl_ext.training.sft_dataset import TurnSFTDataset
from tests.rollout.tiny import TEMPLATES, Guess, Script, builder_for, tiny_tokenizer

MESSAGES = [
    {"role": "system", "content": "Play."},
    {"role": "user", "content": "Say the word!"},
    {"role": "assistant", "content": "no"},
    {"role": "user", "content": "Again!"},
    {"role": "assistant", "content": "yes {1}"},
]


def write(path, dialogues, train_turns=None):
    columns = {"messages": dialogues}
    if train_turns is not None:
        columns["train_turns"] = pa.array(train_turns, type=pa.list_(pa.int64()))
    pq.write_table(pa.table(columns), path)
    return str(path)


def config(**changes):
    return OmegaConf.create({"pad_mode": "no_padding", "max_length": 200, "truncation": "error", **changes})


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("pad_mode", ["no_padding", "right"])
def test_equals_verls_class_when_all_turns_are_trained(template, pad_mode, tmp_path):
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    tokenizer = tiny_tokenizer(template)
    file = write(tmp_path / "a.parquet", [MESSAGES, MESSAGES[1:3], MESSAGES[:3]], [[2, 4], [1], [2]])
    ours = TurnSFTDataset(file, tokenizer, config(pad_mode=pad_mode))
    stock = MultiTurnSFTDataset(file, tokenizer, config(pad_mode=pad_mode))
    assert len(ours) == len(stock) == 3
    for row in range(3):
        mine, theirs = ours[row], stock[row]
        assert mine.keys() == theirs.keys()
        for key in theirs:
            assert torch.equal(mine[key], theirs[key]), key
            assert mine[key].dtype == theirs[key].dtype


@pytest.mark.parametrize("template", TEMPLATES)
def test_loss_on_the_named_turns_only(template, tmp_path):
    tokenizer = tiny_tokenizer(template)
    file = write(tmp_path / "a.parquet", [MESSAGES], [[4]])
    row = TurnSFTDataset(file, tokenizer, config())[0]
    learned = tokenizer.decode(row["input_ids"][row["loss_mask"] == 1])
    assert learned.strip() == "yes {1}<end>"
    whole = tokenizer.apply_chat_template(MESSAGES, tokenize=True)
    assert row["input_ids"].tolist() == list(whole["input_ids"])


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_tokens_are_those_of_the_rollout(template, tmp_path):
    tokenizer = tiny_tokenizer(template)
    episode = Guess()
    engine = Script(tokenizer, ["no", "yes"])
    played = asyncio.run(play(episode, engine, chat_tokens(builder_for(tokenizer)), Limits(200, 300, 32)))
    messages = episode.messages()
    row = TurnSFTDataset(write(tmp_path / "a.parquet", [messages], [[2, 4]]), tokenizer, config())[0]
    segment = played.segments[0]
    stream = segment.prompt_ids + segment.response_ids
    assert row["input_ids"].tolist()[: len(stream)] == stream
    ours = row["loss_mask"].tolist()[: len(stream)]
    # The same turns carry loss, and what the template adds after a turn: supervised learning trains that too.
    trained = [0] * len(segment.prompt_ids) + segment.response_mask
    assert all(mine >= theirs for mine, theirs in zip(ours, trained, strict=True))
    extra = [token for token, mine, theirs in zip(stream, ours, trained, strict=True) if mine > theirs]
    assert tokenizer.decode(extra).strip() == ""


def test_batches_and_files_and_samples(tmp_path):
    tokenizer = tiny_tokenizer()
    first = write(tmp_path / "a.parquet", [MESSAGES, MESSAGES[1:3]])
    second = write(tmp_path / "b.parquet", [MESSAGES[:3]])
    data = TurnSFTDataset([first, second], tokenizer, config())
    together = data.__getitems__([2, 0, 1])
    assert [row["input_ids"].tolist() for row in together] == [
        data[n]["input_ids"].tolist() for n in (2, 0, 1)
    ]
    assert len(TurnSFTDataset([first, second], tokenizer, config(), max_samples=2)) == 2
    chosen = TurnSFTDataset([first, second], tokenizer, config(shuffle=True, seed=1), max_samples=2)
    again = TurnSFTDataset([first, second], tokenizer, config(shuffle=True, seed=1), max_samples=2)
    assert [len(chosen[n]["input_ids"]) for n in (0, 1)] == [len(again[n]["input_ids"]) for n in (0, 1)]


def test_data_loader_takes_batches(tmp_path):
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator

    file = write(tmp_path / "a.parquet", [MESSAGES, MESSAGES[1:3], MESSAGES[:3]] * 4)
    data = TurnSFTDataset(file, tiny_tokenizer(), config())
    loader = StatefulDataLoader(data, batch_size=4, collate_fn=SFTTensorCollator(DatasetPadMode.NO_PADDING))
    batches = list(loader)
    assert len(batches) == 3 and batches[0]["input_ids"].is_nested


def test_truncation(tmp_path):
    tokenizer = tiny_tokenizer()
    file = write(tmp_path / "a.parquet", [MESSAGES])
    with pytest.raises(SftrlError, match=r"a\.parquet, row 0 has 43 tokens.*max_length=20"):
        TurnSFTDataset(file, tokenizer, config(max_length=20))[0]
    whole = TurnSFTDataset(file, tokenizer, config())[0]
    left = TurnSFTDataset(file, tokenizer, config(max_length=20, truncation="left"))[0]
    right = TurnSFTDataset(file, tokenizer, config(max_length=20, truncation="right"))[0]
    assert torch.equal(left["input_ids"], whole["input_ids"][-20:])
    assert torch.equal(right["loss_mask"], whole["loss_mask"][:20])


@pytest.mark.parametrize(
    ("dialogues", "train_turns", "says"),
    [
        ([MESSAGES, MESSAGES], [[4], []], r"a\.parquet, row 1 has an empty train_turns"),
        ([MESSAGES, MESSAGES], [[4], [3]], r"row 1 names a message in train_turns"),
        ([MESSAGES, MESSAGES], [[9], [4]], r"row 0 names a message in train_turns"),
        ([MESSAGES, []], [[4], [4]], r"row 1 has no messages.*RL prompts"),
        ([MESSAGES, MESSAGES[:2]], None, r"row 1 has no assistant message"),
    ],
)
def test_wrong_rows_are_named(dialogues, train_turns, says, tmp_path):
    dialogues = pa.array(
        dialogues, type=pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    )
    with pytest.raises(SftrlError, match=says):
        TurnSFTDataset(write(tmp_path / "a.parquet", dialogues, train_turns), tiny_tokenizer(), config())


def test_other_wrong_inputs(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SftrlError, match="no column 'messages'; found prompt"):
        TurnSFTDataset(str(tmp_path / "a.parquet"), tiny_tokenizer(), config())
    with pytest.raises(SftrlError, match=r"missing\.parquet"):
        TurnSFTDataset(str(tmp_path / "missing.parquet"), tiny_tokenizer(), config())
    tokenizer = tiny_tokenizer()
    file = write(tmp_path / "b.parquet", [MESSAGES])
    with pytest.raises(SftrlError, match="Did you mean 'right'"):
        TurnSFTDataset(file, tokenizer, config(truncation="rigth"))
    tokenizer.chat_template = None
    with pytest.raises(SftrlError, match="no chat template"):
        TurnSFTDataset(file, tokenizer, config())


def test_row_groups_keep_rows_and_turns_together(tmp_path):
    dialogues = [MESSAGES if row % 3 else MESSAGES[:3] for row in range(50)]
    turns = [[4] if row % 3 else [2] for row in range(50)]
    table = pa.table({"messages": dialogues, "train_turns": pa.array(turns, type=pa.list_(pa.int64()))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    tokenizer = tiny_tokenizer()
    data = TurnSFTDataset(str(tmp_path / "a.parquet"), tokenizer, config())
    for row in range(50):
        learned = tokenizer.decode(data[row]["input_ids"][data[row]["loss_mask"] == 1])
        assert learned == ("yes {1}<end>" if row % 3 else "no<end>")
