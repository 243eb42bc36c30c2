"""Rows of hands shown as an image: facts and a marker, or the picture too; splits, command line, checks."""

from __future__ import annotations

import copy
import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.card import inspect_file, write_card
from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.images import IMAGE_ROW_GROUP, embed_images, png_bytes
from data_prep.options import look_fields
from data_prep.schema import IMAGE_SCHEMA, SCHEMA, read_schema
from data_prep.sources import Source, image_seeds
from data_prep.splits import SPLITS, get_split, register_split
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.errors import SftrlError

SMALL = Look(width=96, height=64)
IMAGE = PlaySettings(modality="image", look=SMALL)
BUILDERS = [rl_rows, sft_rows, suboptimal_rows]


def _rows(tables) -> list[dict]:
    return pa.concat_tables(tables).to_pylist()


def _facts(row) -> dict:
    return json.loads(row["extra_info"]["facts"])


@pytest.mark.parametrize("template", ["default", "compact"])
@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("split", ["id", "rule_ood", "visual_ood", "visual_ood_rotated", "ood_large"])
def test_row_and_episode_are_one(builder, split, template):
    play = PlaySettings(modality="image", look=SMALL, template=template)
    table = pa.concat_tables(builder(Source(split, settings=play), 30))
    assert table.schema == SCHEMA
    prompts = set()
    for row in table.to_pylist():
        episode = make_episode(_facts(row))
        assert facts_text(episode.facts) == row["extra_info"]["facts"] == row["reward_model"]["ground_truth"]
        assert row["prompt"] == episode.messages()
        assert row["data_source"] == f"gp_vl/{split}"
        prompts.add(json.dumps(row["prompt"]))
    assert len(prompts) == 1


def test_expert_answers_of_the_authors_profile_name_the_cards_in_its_form():
    play = PlaySettings(profile="authors", template="single_quotes", modality="image", look=SMALL)
    for builder in (sft_rows, suboptimal_rows):
        for row in _rows(builder(Source("face_10", settings=play), 200)):
            episode = make_episode(_facts(row))
            for message in row["messages"][1::2]:
                step = episode.submit(message["content"])
            assert step.terminated
            assert all(attempt.verdict.details["recognized"] for attempt in episode.attempts)
    unread = PlaySettings(profile="authors", modality="image")
    assert len(_rows(rl_rows(Source("id", settings=unread), 3))) == 3
    for builder in (sft_rows, suboptimal_rows):
        with pytest.raises(SftrlError, match="template 'default'.*'single_quotes'"):
            builder(Source("id", settings=unread), 1)


def test_picture_seeds_are_a_function_of_seed_and_row():
    short, long = (_rows(rl_rows(Source(["id", "rule_ood"], 4, settings=IMAGE), n)) for n in (100, 700))
    assert long[:100] == short
    seeds = [_facts(row)["image_seed"] for row in long]
    assert seeds == image_seeds(4, np.arange(700)).tolist()
    assert len(set(seeds)) == 700
    assert not set(seeds) & set(image_seeds(5, np.arange(700)).tolist())
    assert min(seeds) >= 0
    assert max(seeds) < 2**31


def test_a_split_keeps_what_it_is_about():
    def cards(split, hands):
        rows = _rows(rl_rows(Source(split, train=False, settings=IMAGE, hands=hands), 40))
        return [_facts(row)["cards"] for row in rows]

    def suits(hands):
        return {card[-1] for hand in hands for card in hand}

    assert suits(cards("visual_ood", {"suits": "black"})) == suits(cards("visual_ood", {})) == {"H", "D"}
    assert suits(cards("id", {})) == suits(cards("id", {"suits": "black"})) == {"S", "C"}
    assert suits(cards("id", {"suits": "mixed"})) == {"S", "H", "C", "D"}
    with pytest.raises(SftrlError, match="Did you mean 'red'"):
        cards("visual_ood", {"suits": "rde"})
    assert get_split("visual_ood").changed({"suits": "black", "draw": "deck"}).hands.draw == "deck"


@pytest.mark.parametrize("split", [name for name in SPLITS if name.startswith("visual_ood")])
def test_visual_splits_show_the_hands_of_the_split_they_compare_with(split):
    base = SPLITS[split].hands_of
    source = [_rows(rl_rows(Source(name, train=False, settings=IMAGE), 50)) for name in (base, split)]
    ranks = [[[card[:-1] for card in _facts(row)["cards"]] for row in rows] for rows in source]
    assert ranks[0] == ranks[1]
    looks = [_facts(rows[0])["look"] for rows in source]
    changed = {name: value for name, value in looks[1].items() if looks[0][name] != value}
    assert changed == SPLITS[split].look
    assert len(changed) <= 1


def test_a_split_of_a_new_look_is_a_line(monkeypatch):
    monkeypatch.setattr(SPLITS, "_items", dict(SPLITS._items))
    register_split("visual_ood_wood", look={"table": "wood"}, hands_of="id", part="seen")
    (row,) = _rows(rl_rows(Source("visual_ood_wood", train=False, settings=IMAGE), 1))
    assert _facts(row)["look"]["table"] == "wood"


def test_a_look_is_for_images_and_must_change_something():
    with pytest.raises(SftrlError, match="'visual_ood_deck' changes the look of images"):
        list(rl_rows(Source("visual_ood_deck"), 1))
    plain = PlaySettings(modality="image", look=Look(deck="plain"))
    with pytest.raises(SftrlError, match="'visual_ood_deck' changes nothing"):
        list(rl_rows(Source("visual_ood_deck", settings=plain), 1))
    with pytest.raises(SftrlError, match="Did you mean 'image'"):
        get_split("id").data_source("imag")


@pytest.mark.parametrize("builder", BUILDERS)
def test_embedded_pictures_are_the_drawn_ones(builder, tmp_path):
    path = tmp_path / "rows.parquet"
    count = IMAGE_ROW_GROUP + 20
    assert write_rows(path, builder(Source("id", settings=IMAGE), count, images="embed")) == count
    assert read_schema(path) is IMAGE_SCHEMA
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [IMAGE_ROW_GROUP, 20]
    for row in file.read().slice(0, 3).to_pylist():
        ((drawn,), (picture,)) = make_episode(_facts(row)).images(), row["images"]
        assert Image.open(io.BytesIO(picture["bytes"])).convert("RGB") == drawn
        assert picture["path"] is None
    report = validate_file(path)
    assert (report.rows, report.pictures) == (count, count)
    assert f"{count} pictures" in str(report)


def test_embedding_is_for_images():
    with pytest.raises(SftrlError, match="only with modality 'image'"):
        rl_rows(Source("id"), 1, images="embed")
    with pytest.raises(SftrlError, match="Did you mean 'embed'"):
        rl_rows(Source("id", settings=IMAGE), 1, images="embedd")
    assert list(embed_images([])) == []


def _picture(image) -> list[dict]:
    return [{"bytes": png_bytes(image), "path": None}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["prompt"][0].update(content="no picture"), "'prompt' has 0 image markers, expected 1"),
        (
            lambda r: r["prompt"][0].update(content="<image><image>"),
            "'prompt' has 2 image markers, expected 1",
        ),
        (lambda r: r["prompt"][0].update(content="<image> hi"), "column 'prompt' has at message 0"),
        (lambda r: r.update(images=[]), "'images' has 0 pictures, expected 1"),
        (lambda r: r.update(images=r["images"] * 2), "'images' has 2 pictures, expected 1"),
        (lambda r: r["images"][0].update(bytes=None), "picture 0 has no bytes"),
        (lambda r: r["images"][0].update(bytes=b"x"), "picture 0: cannot be read"),
        (lambda r: r["images"][0].update(bytes=r["images"][0]["bytes"][:200]), "picture 0: cannot be read"),
        (
            lambda r: r.update(images=_picture(Image.new("RGB", (64, 96)))),
            "picture 0 has the size 64x96, expected 96x64",
        ),
        (lambda r: r.update(images=_picture(Image.new("RGB", (96, 64)))), "not what the facts draw"),
    ],
)
def test_what_is_wrong_with_a_picture_is_named(tmp_path, change, words):
    path = tmp_path / "rows.parquet"
    rows = _rows(sft_rows(Source("id", settings=IMAGE), 5, images="embed"))
    rows[3] = copy.deepcopy(rows[3])
    change(rows[3])
    write_rows(path, [pa.Table.from_pylist(rows, IMAGE_SCHEMA)])
    with pytest.raises(SftrlError, match=f"rows.parquet: row 3: .*{words}"):
        validate_file(path)


@pytest.mark.parametrize(("settings", "expected"), [(IMAGE, 1), (PlaySettings(), 0)])
def test_markers_are_counted_without_pictures_in_the_file(tmp_path, settings, expected):
    path = tmp_path / "rows.parquet"
    rows = _rows(rl_rows(Source("id", settings=settings), 3))
    rows[1]["prompt"][0]["content"] += " <image>"
    write_rows(path, [pa.Table.from_pylist(rows, SCHEMA)])
    with pytest.raises(SftrlError, match=f"row 1: .*has {expected + 1} image markers, expected {expected}"):
        validate_file(path)


def test_the_card_tells_modality_suits_and_look(tmp_path):
    for name, source in {
        "text": Source("id"),
        "train": Source("id", settings=IMAGE),
        "red": Source("visual_ood", train=False, settings=IMAGE),
        "turned": Source("visual_ood_rotated", train=False, settings=IMAGE),
    }.items():
        write_rows(tmp_path / f"{name}.parquet", rl_rows(source, 60))
    text = write_card(sorted(tmp_path.glob("*.parquet")), tmp_path / "card.md")
    cells = {line.split("|")[1].strip(): line.split("|")[8:10] for line in text.splitlines() if "|" in line}
    row = "image 96x64 (table green, deck classic, arrangement row)"
    for name, shown, suits in (
        ("text", "text", "mixed"),
        ("train", row, "black"),
        ("red", row, "red"),
        ("turned", row.replace("row", "rotated"), "black"),
    ):
        header = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert [cell.strip() for cell in header.split("|")[8:10]] == [shown, suits], cells
    assert inspect_file(tmp_path / "red.parquet").tasks["general_points"].suits == {"H", "D"}


def _build(tmp_path, *words):
    path = tmp_path / "rows.parquet"
    status = main(["data", *words, "--modality", "image", "--rows", "5", "--out", str(path)])
    return path if status == 0 else None


def test_the_command_line(tmp_path, capsys):
    path = _build(
        tmp_path, "sft", "--image-size", "96x64", "--look", "table=blue,deck=plain", "--embed-images"
    )
    assert main(["validate", str(path)]) == 0
    assert "5 pictures" in capsys.readouterr().out
    facts = [_facts(row) for row in pq.read_table(path).to_pylist()]
    look = {"width": 96, "height": 64, "table": "blue", "deck": "plain", "arrangement": "row"}
    assert all(fact["look"] == look for fact in facts)
    assert {card[-1] for fact in facts for card in fact["cards"]} <= {"S", "C"}
    path = _build(tmp_path, "rl", "--suits", "red")
    assert read_schema(path) is SCHEMA
    assert {card[-1] for row in pq.read_table(path).to_pylist() for card in _facts(row)["cards"]} <= {
        "H",
        "D",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rl", "--image-size", "1200"], "expected <width>x<height>"),
        (["rl", "--look", "blue"], "expected <field>=<value>"),
        (["rl", "--look", "tabel=blue"], "Did you mean 'table'"),
        (["rl", "--look", "table=bleu"], "Did you mean 'blue'"),
        (["rl", "--template", "mine.yaml"], "does not exist"),
        (["rl", "--split", "visual_od"], "Did you mean 'visual_ood'"),
        (["import", "--from", "data.json"], "'import' gives text rows"),
    ],
)
def test_wrong_command_lines(tmp_path, capsys, words, message):
    assert _build(tmp_path, *words) is None
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_look_without_images_is_refused(tmp_path, capsys):
    for words in (["--look", "table=blue"], ["--image-size", "64x64"], ["--embed-images"]):
        assert main(["data", "rl", *words, "--out", str(tmp_path / "x.parquet")]) == 2
        assert "'image'" in capsys.readouterr().err
    assert look_fields(None, None) == {}
    assert look_fields(" 10x20", "a=b, c = 3") == {"width": 10, "height": 20, "a": "b", "c": 3}


@pytest.mark.slow
def test_verls_rl_data_set_reads_embedded_pictures(tmp_path):
    pytest.importorskip("verl")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    path = tmp_path / "rows.parquet"
    write_rows(path, rl_rows(Source("id", settings=IMAGE), 3, images="embed"))
    config = OmegaConf.create({"max_prompt_length": 256, "filter_overlong_prompts": False})
    processor = SimpleNamespace(image_processor=None)  # verl only asks whether there is one
    row = RLHFDataset([str(path)], None, config, processor)[1]
    content = row["raw_prompt"][0]["content"]
    assert [part["type"] for part in content] == ["image", "text"]
    facts = json.loads(row["reward_model"]["ground_truth"])
    assert content[0]["image"].convert("RGB") == make_episode(facts).images()[0]
