"""Supervised rows that show images: verl's tensors, the rollout's prompts, and nothing cut."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.tokens import Dialogue, load_chat_tokens
from sftrl_ext.training.sft_dataset import TurnSFTDataset
from sftrl_ext.training.sft_images import ImageRows
from tests.backends.tiny_vl import folder
from tests.rollout.tiny import tiny_tokenizer
from tests.training.image_dataset import (
    build,
    changed,
    edited,
    marker_twice,
    processor,
    sft_config,
    tokenizer,
    without,
)

WORD = 100
"""A token that stands for nothing else."""
KEYS = {"input_ids", "position_ids", "loss_mask", "multi_modal_inputs"}


def data_of(file, **changes):
    return TurnSFTDataset(file, tokenizer(), sft_config(**changes), processor())


def facts_of(file, row):
    return json.loads(pq.read_table(file)["extra_info"][row].as_py()["facts"])


def rollout_positions(ids, inputs):
    """What verl's agent loop computes for the trainer. Shape (4, tokens)."""
    worker = SimpleNamespace(processor=processor())
    inputs = {**inputs, "mm_token_type_ids": True}
    ids = ids[None]
    return AgentLoopWorker._compute_position_ids(worker, ids, torch.ones_like(ids), inputs)[0]


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, dict):
            same(mine[key], value)
        else:
            assert mine[key].dtype == value.dtype and torch.equal(mine[key], value), key


@pytest.mark.parametrize("kind", ["sft", "suboptimal"])
def test_tokens_positions_and_pixels_are_those_of_the_rollout(kind, tmp_path):
    file = build(tmp_path / "a.parquet", kind)
    data, chat = data_of(file), load_chat_tokens(folder())
    for number in range(len(data)):
        row, episode = data[number], make_episode(facts_of(file, number))
        assert set(row) == KEYS
        start = Dialogue.start(chat, episode.messages(), episode.images())
        assert row["input_ids"].tolist()[: len(start.prompt_ids)] == start.prompt_ids
        pixels = processor().image_processor(images=list(episode.images()), return_tensors="pt")
        same(row["multi_modal_inputs"], dict(pixels))
        assert torch.equal(
            row["position_ids"], rollout_positions(row["input_ids"], row["multi_modal_inputs"])
        )
        learned = tokenizer().decode(row["input_ids"][row["loss_mask"] == 1])
        last = pq.read_table(file)["messages"][number].as_py()[-1]["content"]
        assert learned == f"{last}<|im_end|>\n"


@pytest.fixture
def stock(monkeypatch):
    """verl's own class; what it reads images with is not installed, and would give them back unchanged."""
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    reader = SimpleNamespace(fetch_image=lambda image, **_: image["image"].convert("RGB"))
    monkeypatch.setitem(sys.modules, "qwen_vl_utils", reader)
    return lambda file, **changes: MultiTurnSFTDataset(file, tokenizer(), sft_config(**changes), processor())


@pytest.mark.parametrize("kind", ["sft", "suboptimal"])
@pytest.mark.parametrize("pad_mode", ["no_padding", "right"])
def test_equals_verls_class_on_the_embedded_file(kind, pad_mode, tmp_path, stock):
    drawn = without(build(tmp_path / "a.parquet", kind), "train_turns")
    embedded = without(build(tmp_path / "b.parquet", kind, images="embed"), "train_turns")
    opened = without(
        without(build(tmp_path / "c.parquet", kind, images="embed"), "train_turns"), "extra_info"
    )
    theirs = stock(embedded, pad_mode=pad_mode)
    for file in (drawn, embedded, opened):
        ours = data_of(file, pad_mode=pad_mode)
        assert len(ours) == len(theirs)
        for row in range(len(ours)):
            same(ours[row], theirs[row])


def test_text_rows_of_a_model_that_sees(tmp_path, stock):
    file = without(build(tmp_path / "a.parquet", look=None), "train_turns")
    ours, theirs = data_of(file), stock(file)
    for row in range(len(ours)):
        assert set(ours[row]) == KEYS - {"multi_modal_inputs"}
        same(ours[row], theirs[row])


def test_rows_with_and_without_images_make_one_batch(tmp_path):
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
    from verl.utils.model import extract_multi_modal_inputs
    from verl.utils.tensordict_utils import get_tensordict, index_select_tensor_dict

    seen = build(tmp_path / "a.parquet", rows=3)
    read = build(tmp_path / "b.parquet", look=None, rows=3)
    wide = build(tmp_path / "c.parquet", look=Look(width=168, height=84), rows=2)
    data = data_of([read, seen, wide])
    loader = StatefulDataLoader(data, batch_size=8, collate_fn=SFTTensorCollator(DatasetPadMode.NO_PADDING))
    (batch,) = loader
    rows = [data[n] for n in range(8)]
    batch = get_tensordict(batch, {})
    assert [part.tolist() for part in batch["position_ids"].unbind()] == [
        row["position_ids"].tolist() for row in rows
    ]
    # The engine takes such parts of a batch, and puts the images of their rows together.
    for part in ([*range(8)], [2, 3], [7, 6], [0, 1]):
        some = index_select_tensor_dict(batch, part)
        inputs = extract_multi_modal_inputs(some["multi_modal_inputs"])
        expected = [rows[n]["multi_modal_inputs"] for n in part if rows[n]["multi_modal_inputs"]]
        assert bool(inputs) == bool(expected)
        for key in inputs:
            assert torch.equal(inputs[key], torch.cat([row[key] for row in expected]))


def test_a_batch_is_its_rows(tmp_path):
    data = data_of(build(tmp_path / "a.parquet", "suboptimal", rows=9))
    for row, alone in zip(data.__getitems__([8, 0, 3]), (data[8], data[0], data[3]), strict=True):
        same(row, alone)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.tuples(st.integers(1, 5), st.integers(1, 5))), min_size=1, max_size=4
    ),
    st.integers(0, 4),
)
def test_positions_of_any_row_are_those_of_the_rollout(parts, rest):
    rows = ImageRows(processor())
    ids, grids = [], []
    for text, (height, width) in parts:
        # Something always parts two images: the chat format puts tokens around each.
        ids += [WORD] * (text + 1) + [rows.tokens.placeholder] * (height * width)
        grids.append((1, 2 * height, 2 * width))
    ids += [WORD] * rest
    seen = {"image_grid_thw": torch.tensor(grids)}
    found = rows.positions(np.array(ids), seen, "row")
    expected = rollout_positions(torch.tensor(ids), {"image_grid_thw": torch.tensor(grids)})
    assert found.tolist() == expected.tolist()
    with pytest.raises(SftrlError, match="row has .* placeholder tokens; expected"):
        rows.positions(np.array([*ids, rows.tokens.placeholder]), seen, "row")


@settings(max_examples=50, deadline=None)
@given(st.integers(28, 400), st.integers(28, 400))
def test_tokens_of_any_image_are_counted_before_it_is_cut_into_patches(width, height):
    rows = ImageRows(processor())
    image = Image.new("RGB", (width, height))
    t, h, w = rows.inputs([image])["image_grid_thw"][0].tolist()
    assert rows.tokens.count(image, "row") == t * h * w // 4


def spell(row, messages):
    """A placeholder in an answer of the last row."""
    return messages if row < 5 else [*messages[:-1], {"role": "assistant", "content": "<|image_pad|>"}]


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("messages", marker_twice, r"a\.parquet, row 5 has 2 image markers; expected 1"),
        ("messages", spell, r"a\.parquet, row 5 has 2 placeholder tokens of images; expected 1"),
        ("extra_info", edited(cards=["K", "5", "2", "4"]), r"row 5: the card 'K' has no suit"),
        ("extra_info", edited(look={"width": 112, "height": 20}), r"row 5: the height of a picture"),
        ("extra_info", edited(look={"width": 8192, "height": 32}), r"row 5: an image of 8192x32 .* refused"),
        ("extra_info", lambda row, extra: {**extra, "facts": "["}, r"a\.parquet, row 5: extra_info\.facts"),
    ],
)
def test_wrong_rows_are_named(column, change, says, tmp_path):
    data = data_of(changed(build(tmp_path / "a.parquet"), column, change))
    with pytest.raises(SftrlError, match=says):
        data[5]


def test_nothing_is_cut(tmp_path):
    file = build(tmp_path / "a.parquet")
    with pytest.raises(SftrlError, match=r"row 0 shows an image and data\.truncation is 'left'"):
        data_of(file, truncation="left")
    with pytest.raises(SftrlError, match=r"row 1 has \d+ tokens, more than data\.max_length=40: raise it\.$"):
        data_of(file, max_length=40)[1]
    # Text can still be cut.
    text = build(tmp_path / "b.parquet", look=None)
    assert data_of(text, truncation="right", max_length=40)[0]["position_ids"].shape == (4, 40)


def test_models_and_files_that_cannot_show_are_refused(tmp_path):
    file = build(tmp_path / "a.parquet")
    with pytest.raises(SftrlError, match="row 0 shows an image, but the model has no image processor"):
        TurnSFTDataset(file, tiny_tokenizer(), sft_config())
    other = SimpleNamespace(image_processor=object())
    with pytest.raises(SftrlError, match="expected the processor of a Qwen2-VL"):
        TurnSFTDataset(file, tokenizer(), sft_config(), other)
    with pytest.raises(SftrlError, match=r"has neither extra_info\.facts .* nor a column 'images'"):
        data_of(without(file, "extra_info"))


def test_pictures_of_a_file_without_facts(tmp_path):
    Image.new("RGBA", (56, 28), (9, 9, 9, 255)).save(tmp_path / "p.png")
    Image.new("RGB", (112, 27)).save(tmp_path / "low.png")
    asked = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "<image>"}]
    paths = [{"bytes": None, "path": str(tmp_path / name)} for name in ("p.png", "low.png", "none.png")]
    pictures = [[path] for path in paths] + [[{"bytes": b"no", "path": None}], [], None]
    table = pa.table({"messages": [asked] * len(pictures), "images": pictures})
    pq.write_table(table, tmp_path / "a.parquet")
    data = data_of(str(tmp_path / "a.parquet"))
    assert data[0]["multi_modal_inputs"]["image_grid_thw"].tolist() == [[1, 2, 4]]
    # In an answer a marker is text.
    assert "<image>" in tokenizer().decode(data[0]["input_ids"])
    says = ["112x27 pixels; expected at least 28x28", "image 0: no such file", "image 0: cannot be read"]
    for row, said in enumerate([*says, "has 1 image markers; expected 0", "expected 0"], start=1):
        with pytest.raises(SftrlError, match=rf"a\.parquet, row {row}:? .*{said}"):
            data[row]


def test_row_groups_keep_rows_and_pictures_together(tmp_path):
    whole = build(tmp_path / "a.parquet", rows=40)
    pq.write_table(pq.read_table(whole), tmp_path / "b.parquet", row_group_size=7)
    one, many = data_of(whole), data_of(str(tmp_path / "b.parquet"))
    for row in range(0, 40, 3):
        same(many[row], one[row])
