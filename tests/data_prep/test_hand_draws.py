"""The draw of hands as an option of files, splits and recipes, and in the dataset card."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from data_prep.card import inspect_file, write_card
from data_prep.general_points import rl_rows, sft_rows
from data_prep.hand_draws import KEY
from data_prep.hand_rows import HandRows
from data_prep.sources import Source
from data_prep.splits import SPLITS, register_split
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs.general_points.cards import FACES
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.schema import SCALES


def one_face(path):
    """The share of rows whose hand holds exactly one face card."""
    hands = [json.loads(row["facts"])["cards"] for row in pq.read_table(path)["extra_info"].to_pylist()]
    return sum(sum(card.rstrip("SHDC") in FACES for card in hand) == 1 for hand in hands) / len(hands)


@pytest.mark.parametrize(
    ("words", "share"),
    [([], 0.681), (["--draw", "authors"], 0.496), (["--profile", "authors"], 0.496)]
    + [(["--profile", "authors", "--draw", "iid"], 0.681)],
)
def test_sftrl_data_draws_as_asked_or_as_the_profile_says(tmp_path, words, share):
    out = tmp_path / "rows.parquet"
    assert main(["data", "rl", "--split", "rule_ood", "--rows", "4000", "--out", str(out), *words]) == 0
    assert one_face(out) == pytest.approx(share, abs=0.03)
    assert validate_file(out, limit=50).rows == 50


def test_the_card_has_both_draws_with_their_exact_shares(tmp_path):
    files = []
    for draw in ("authors", "iid"):
        files.append(tmp_path / f"{draw}.parquet")
        write_rows(files[-1], rl_rows(Source(["rule_ood", "id"], hands={"draw": draw}), 600))
    lines = write_card(files, tmp_path / "card.md").splitlines()
    # Of the split, which leaves out the numbers that are held out: 49.6 % and 67.9 % of all hands.
    assert lines.count("| rule_ood | **authors** | 49.6 % | 63.2 % |") == 1
    assert lines.count("| rule_ood | **iid** | 68.1 % | 70.0 % |") == 1
    assert lines.count("| rule_ood | iid | 68.1 % | 70.0 % |") == 1
    assert not any(line.startswith("| id |") for line in lines), "no card of `id` is forced"
    only = write_card(files[:1], tmp_path / "card.md")
    assert "| rule_ood | **authors** |" in only and "| rule_ood | iid |" in only


def test_a_split_keeps_the_draw_it_sets(tmp_path):
    hard = register_split("test_hard_draw", rule="face_11_12_13", need_face=True, draw="authors")
    try:
        source = Source(["test_hard_draw", "rule_ood"], hands={"draw": "deck"})
        assert [split.hands.draw for split in source.resolved()] == ["authors", "deck"]
        write_rows(tmp_path / "rows.parquet", rl_rows(source, 200))
        found = inspect_file(tmp_path / "rows.parquet").tasks["general_points"]
        assert {name: spec.draw for name, spec in found.draws.items()} == {
            "test_hard_draw": "authors",
            "rule_ood": "deck",
        }
        assert found.draws["test_hard_draw"] == hard.hands
    finally:
        del SPLITS._items["test_hard_draw"]


def test_files_with_pictures_say_their_draw_too(tmp_path):
    source = Source("rule_ood", settings=PlaySettings(modality="image"), hands={"draw": "authors"})
    path = tmp_path / "rows.parquet"
    write_rows(path, sft_rows(source, 2, images="embed"))
    assert inspect_file(path).tasks["general_points"].draws["rule_ood"].draw == "authors"
    assert "images" in pq.read_schema(path).names


def test_metadata_of_another_form_are_named(tmp_path):
    path = tmp_path / "rows.parquet"
    table = next(iter(rl_rows(Source("id"), 3))).replace_schema_metadata({KEY: '{"id": {"rool": 1}}'})
    write_rows(path, [table])
    with pytest.raises(SftrlError, match="rows.parquet: metadata 'sftrl.hands'"):
        inspect_file(path)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["fig6_gp_l", "fig7_gp_vl"])
def test_the_paper_scales_draw_as_the_authors(name, scale, tmp_path):
    expected = "authors" if scale in ("node", "cluster") else "iid"
    for words, draw in (([], expected), (["task.profile=authors"], "authors"), (["task.draw=deck"], "deck")):
        rows = HandRows(load_recipe(name, scale, words).task, tmp_path)
        assert {split.hands.draw for split in rows.source(["id", "rule_ood"], 0, None).resolved()} == {draw}
