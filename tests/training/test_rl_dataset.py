"""Prompts of RL: checked when they are read, with pictures only for the loops that do not draw them."""

from __future__ import annotations

import asyncio
import json
import pickle
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn, get_dataset_class

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.errors import SftrlError
from sftrl_ext.paths import configs_dir
from sftrl_ext.rollout.tokens import Dialogue, load_chat_tokens
from sftrl_ext.rollout.verifier_loop import episode_of_row, facts_of_row
from sftrl_ext.training.rl_dataset import EpisodeDataset
from tests.backends.tiny_vl import folder
from tests.rollout.tiny import tiny_tokenizer
from tests.training.image_dataset import build, changed, edited, marker_twice, processor, tokenizer, without


def config(**changes):
    return OmegaConf.create(
        {"max_prompt_length": 200, "filter_overlong_prompts": False, "truncation": "error", **changes}
    )


def data_of(files, **changes):
    return EpisodeDataset(files, tokenizer(), config(**changes), processor())


def other_loop(row, name):
    return "single_turn_agent" if row % 2 else name


@pytest.fixture
def file(tmp_path):
    return build(tmp_path / "a.parquet", "rl")


def test_our_loop_gets_no_pixels_and_plays_the_row(file):
    data = data_of(file)
    stock = RLHFDataset([file], tokenizer(), config(), None)
    for number in range(len(data)):
        row, plain = data[number], stock[number]
        assert row.pop("dummy_tensor") == plain.pop("dummy_tensor")
        assert row == plain and "images" not in row
        episode = episode_of_row(row, facts_of_row(row))
        assert episode.messages() == row["raw_prompt"] and len(episode.images()) == 1


def test_other_loops_get_pictures_as_content_blocks(file):
    data = data_of(changed(file, "agent_name", other_loop))
    chat = load_chat_tokens(folder())
    batch = collate_fn([data[number] for number in range(4)])
    for number, row in enumerate(data[n] for n in range(4)):
        episode = make_episode(facts_of_row(row))
        prompt = pickle.loads(pickle.dumps(list(batch["raw_prompt"][number])))  # as it goes through Ray
        media = asyncio.run(EpisodeDataset.process_multi_modal_info(prompt, 14, config()))
        if number % 2 == 0:
            assert prompt == episode.messages() and media == (None, None, None)
            continue
        assert [part["type"] for part in prompt[-1]["content"]] == ["image", "text"]
        images, videos, sounds = media
        assert videos is None and sounds is None
        assert [image.tobytes() for image in images] == [image.tobytes() for image in episode.images()]
        # What verl's loops make of it is the prompt of our own.
        ids = chat.builder.build_initial_tokens(prompt, images=images)
        assert ids == Dialogue.start(chat, episode.messages(), episode.images()).prompt_ids
        assert episode_of_row(row, facts_of_row(row)).messages() == episode.messages()


def test_rows_without_an_agent_go_to_the_default_loop(file):
    without(file, "agent_name")
    assert isinstance(data_of(file)[0]["raw_prompt"][-1]["content"], str)
    row = data_of(file, default_agent_loop="single_turn_agent")[0]
    assert row["raw_prompt"][-1]["content"][0]["type"] == "image"


def test_the_facts_decide_where_pictures_are_in_the_file_too(tmp_path):
    drawn, embedded = (build(tmp_path / f"{name}.parquet", "rl", images=name) for name in ("draw", "embed"))
    for number in range(3):
        one, other = data_of(drawn)[number], data_of(embedded)[number]
        assert one.pop("dummy_tensor") == other.pop("dummy_tensor") and one == other
        # verl's own class puts the pictures into the prompt; our loop plays the same episode.
        row = RLHFDataset([embedded], tokenizer(), config(), processor())[number]
        assert row["raw_prompt"][-1]["content"][0]["type"] == "image"
        assert episode_of_row(row, facts_of_row(row)).messages() == one["raw_prompt"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(32, 400), st.integers(32, 400))
def test_tokens_of_any_prompt_are_those_of_the_rollout(tmp_path, width, height):
    file = build(tmp_path / "a.parquet", "rl", rows=1, look=Look(width=width, height=height))
    episode = make_episode(json.loads(pq.read_table(file)["extra_info"][0].as_py()["facts"]))
    start = Dialogue.start(load_chat_tokens(folder()), episode.messages(), episode.images())
    tokens = len(start.prompt_ids)
    data_of(file, max_prompt_length=tokens)[0]
    says = rf"a\.parquet, row 0 has a prompt of {tokens} tokens; .*max_prompt_length={tokens - 1}"
    with pytest.raises(SftrlError, match=says):
        data_of(file, max_prompt_length=tokens - 1)[0]


def no_marker(row, prompt):
    return prompt if row < 5 else [{**prompt[0], "content": "?"}, *prompt[1:]]


def spell(row, prompt):
    return prompt if row < 5 else [{**prompt[0], "content": "<image><|image_pad|>"}, *prompt[1:]]


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("prompt", marker_twice, r"b\.parquet, row 5 has 2 image markers; expected 1"),
        ("prompt", no_marker, r"b\.parquet, row 5 has 0 image markers; expected 1"),
        ("prompt", spell, r"b\.parquet, row 5 has 2 placeholder tokens of images; expected 1"),
        ("extra_info", edited(cards=["K", "5", "2", "4"]), r"b\.parquet, row 5: the card 'K' has no suit"),
        ("extra_info", edited(look={"width": 8192, "height": 32}), r"row 5: an image of 8192x32 .* refused"),
        ("extra_info", edited(look={"width": 980, "height": 980}), r"row 5 has a prompt of 12\d\d tokens"),
        ("extra_info", lambda row, extra: {**extra, "facts": "["}, r"b\.parquet, row 0: extra_info\.facts"),
    ],
)
def test_wrong_rows_are_named(file, column, change, says, tmp_path):
    second = changed(build(tmp_path / "b.parquet", "rl", look=Look(width=140, height=56)), column, change)
    with pytest.raises(SftrlError, match=says):
        data_of([file, second])[11]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"truncation": "left"}, r"row 0 shows an image and data\.truncation is 'left'"),
        ({"mm_processor_kwargs": {"min_pixels": 9}}, r"data\.mm_processor_kwargs is \{'min_pixels': 9\}"),
    ],
)
def test_nothing_is_cut_or_changed(file, changes, says):
    with pytest.raises(SftrlError, match=says):
        data_of(file, **changes)[0]


def test_models_that_see_nothing_are_refused(file):
    with pytest.raises(SftrlError, match="row 0 shows an image, but the model has no image processor"):
        EpisodeDataset(file, tiny_tokenizer(), config())[0]
    with pytest.raises(SftrlError, match="expected the processor of a Qwen2-VL"):
        EpisodeDataset(file, tokenizer(), config(), SimpleNamespace(image_processor=object()))[0]


@pytest.mark.parametrize("sees", [False, True])
def test_text_rows_are_those_of_verls_class(sees, tmp_path):
    words, seeing = (tokenizer(), processor()) if sees else (tiny_tokenizer(), None)
    file = build(tmp_path / "a.parquet", "rl", look=None)
    limit = config(max_prompt_length=500)
    ours, stock = (kind([file], words, limit, seeing) for kind in (EpisodeDataset, RLHFDataset))
    for number in range(len(ours)):
        row, plain = ours[number], stock[number]
        assert row.pop("dummy_tensor") == plain.pop("dummy_tensor") and row == plain
    with pytest.raises(SftrlError, match=r"a\.parquet, row 2 has a prompt of \d+ tokens; expected at most"):
        EpisodeDataset(file, words, config(max_prompt_length=9), seeing)[2]


def test_long_prompts_are_left_out_if_asked(tmp_path):
    small, large = (
        build(tmp_path / f"{side}.parquet", "rl", look=Look(width=side, height=side)) for side in (112, 448)
    )
    data = data_of([small, large], filter_overlong_prompts=True)
    widths = {json.loads(data[n]["extra_info"]["facts"])["look"]["width"] for n in range(len(data))}
    assert len(data) == 6 and widths == {112}


def test_rows_of_others_are_left_to_verl(file):
    without(file, "extra_info")
    assert data_of(file)[0]["raw_prompt"][-1]["content"].startswith("<image>")


def test_the_configuration_names_the_class():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(configs_dir()), version_base=None):
        made = compose("ppo", ["backend=cpu", "actor_rollout_ref.rollout.agent.default_agent_loop=x"])
    assert get_dataset_class(made.data) is EpisodeDataset
    assert made.data.default_agent_loop == "x"
