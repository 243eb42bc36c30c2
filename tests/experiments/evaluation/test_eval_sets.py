"""Given hands and routes as evaluation splits of a run."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.general_points import rl_rows
from data_prep.origins import read_origins
from data_prep.sources import Source
from data_prep.validate import validate_file
from data_prep.virl_sources import read_route_set
from data_prep.writer import write_rows
from sftrl_ext.cli import main
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.targets import load_eval_set
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.planner.stages.eval_stage import evaluated_hands
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.reports.analysis.splits import is_ood, ood_kind, split_title
from sftrl_ext.runs.layout import RunLayout

SMALL = ["budget.base.rows=64", "budget.dialogues.rows=32", "budget.init.rows=32", "budget.sft.rows=32"]
SMALL += ["budget.rl.rows=32", "budget.eval.hands=4"]


def built(root, *words, name="fig6_gp_l"):
    recipe = load_recipe(name, "smoke", [*SMALL, *words])
    layout = RunLayout(root)
    build_data(recipe, layout)
    return recipe, layout


def facts_of(layout, split):
    rows = pq.read_table(layout.eval_rows(split)).to_pylist()
    assert {row["data_source"].split("/")[1] for row in rows} == {split}
    return [json.loads(row["extra_info"]["facts"]) for row in rows]


def ranks(facts):
    return [[card[:-1] for card in one["cards"]] for one in facts]


@pytest.mark.parametrize(
    ("splits", "found"), [([None, None], "None"), (["id", None], "'id', None"), ("ab", "'a', 'b'")]
)
def test_a_file_without_exactly_one_split_is_refused(tmp_path, splits, found):
    write_rows(tmp_path / "rows.parquet", rl_rows(Source("id", train=False), 2))
    table = pq.read_table(tmp_path / "rows.parquet")
    rows = table.to_pylist()
    for row, split in zip(rows, splits, strict=True):
        row["extra_info"]["split"] = split
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "foreign.parquet")
    with pytest.raises(SftrlError, match=rf"foreign\.parquet: column extra_info\.split: found {found};"):
        load_eval_set(tmp_path / "foreign.parquet")


def test_hands_of_a_csv_are_a_split_of_the_run(tmp_path):
    (tmp_path / "hands.csv").write_text(
        'cards,target,rule\nK 5 A 4,,\n"3, 3, 8, 8",24,all_5\nQ K 2 A,,all_7\n9 8 7 6,30,\n'
    )
    recipe, layout = built(tmp_path / "run", f"task.eval_sets={{rule_published: {tmp_path}/hands.csv}}")
    assert recipe.task.eval_splits[-1] == "rule_published"
    facts = facts_of(layout, "rule_published")
    assert ranks(facts) == [
        ["K", "5", "A", "4"],
        ["3", "3", "8", "8"],
        ["Q", "K", "2", "A"],
        ["9", "8", "7", "6"],
    ]
    assert [one["rule"] for one in facts] == ["face_11_12_13", "all_5", "all_7", "face_11_12_13"]
    assert [one["target"] for one in facts] == [24, 24, 24, 30]
    assert {one["template"] for one in facts} == {"compact"}
    assert validate_file(layout.eval_rows("rule_published")).rows == 4
    origin = read_origins(layout.origins)["eval-rule_published"]
    assert (origin.file, origin.rows) == (str(tmp_path / "hands.csv"), 4)
    card = (layout.data / "dataset_card.md").read_text()
    assert "| eval-rule_published | 4 | RL / evaluation | rule_published |" in card
    assert f"| eval-rule_published | `{tmp_path}/hands.csv` | `{origin.sha256[:16]}` | 4 | 4 | 0 |" in card
    [rl] = [stage for stage in make_plan(recipe, layout.root) if stage.kind == "rl"]
    assert any(str(layout.eval_rows("rule_published")) in word for word in rl.command)


def test_hands_in_json_and_parquet_are_the_same(tmp_path):
    hands = [["K", "5", "2", "4"], ["10", "5", "2", "4"]]
    (tmp_path / "a.json").write_text(json.dumps([hands[0], {"cards": hands[1], "target": 24}]))
    pq.write_table(pa.table({"cards": hands}), tmp_path / "b.parquet")
    sets = f"task.eval_sets={{id_a: {tmp_path}/a.json, id_b: {tmp_path}/b.parquet}}"
    _, layout = built(tmp_path / "run", sets, "+budget.eval.hands_of.id_b=1")
    one, two = facts_of(layout, "id_a"), facts_of(layout, "id_b")
    assert ranks(one) == hands and ranks(two) == hands[:1]
    assert {facts["rule"] for facts in one} == {"face_10"}


def test_rows_of_ours_give_their_hands(tmp_path):
    write_rows(tmp_path / "rows.parquet", rl_rows(Source("rule_ood", seed=9), 5))
    _, layout = built(tmp_path / "run", f"task.eval_sets={{rule_again: {tmp_path}/rows.parquet}}")
    given = pq.read_table(tmp_path / "rows.parquet")["extra_info"].to_pylist()
    assert [one["cards"] for one in facts_of(layout, "rule_again")] == [
        json.loads(row["facts"])["cards"] for row in given
    ]
    assert {one["template"] for one in facts_of(layout, "rule_again")} == {"compact"}


def test_given_hands_are_shown_in_the_suits_of_their_split(tmp_path):
    (tmp_path / "hands.csv").write_text("cards\nK 5 2 4\n10 5 2 4\n")
    sets = "task.eval_sets={{id_mine: {0}, visual_mine: {0}}}".format(tmp_path / "hands.csv")
    _, layout = built(tmp_path / "run", sets, name="fig6_gp_vl")
    for split, letters in (("id_mine", "SC"), ("visual_mine", "HD")):
        facts = facts_of(layout, split)
        assert ranks(facts) == [["K", "5", "2", "4"], ["10", "5", "2", "4"]]
        assert {card[-1] for one in facts for card in one["cards"]} <= set(letters)
        assert validate_file(layout.eval_rows(split)).rows == 2
    (tmp_path / "hands.csv").write_text("cards\nKH 5S 2S 4S\n")
    with pytest.raises(
        SftrlError, match=r"id_mine: .*row 0: field 'cards' has KH; expected black suits \(S, C\)"
    ):
        built(tmp_path / "red", sets, name="fig6_gp_vl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cards\nK 5 2 4\n1 5 2\n", r"row 1: field 'cards' is \"1 5 2\": '1' is not a card"),
        ("cards\nK 5\n", r"row 0: field 'cards' has 2 cards, expected 3 to 6"),
        (
            "cards\nA A A A\n",
            r"row 0: field 'cards': A, A, A, A|cards': A A A A are 1, 1, 1, 1 under rule 'face_10'",
        ),
        (
            "cards,rule\nK 5 2 4,face_11_12_13\n",
            r"row 0: field 'rule' is 'face_11_12_13'; expected 'face_10', by",
        ),
        (
            "cards,rule\nK 5 2 4,face10\n",
            r"row 0: field 'rule': unknown card rule 'face10'. Did you mean 'face_10'",
        ),
        ("cards,target\nK 5 2 4,two\n", r"row 0: field 'target' is 'two', expected a whole number"),
        ("hand\nK 5 2 4\n", r"row 0: unknown field 'hand'"),
        ("cards\nK,5,2,4\n", r"row 0: more values than columns"),
        ("cards\n", r"hands.csv: expected a list with at least one row, found an empty list"),
    ],
)
def test_a_wrong_hand_is_named(text, message, tmp_path):
    (tmp_path / "hands.csv").write_text(text)
    with pytest.raises(SftrlError, match=message) as error:
        built(tmp_path / "run", f"task.eval_sets={{id_mine: {tmp_path}/hands.csv}}")
    assert str(error.value).startswith(f"task.eval_sets.id_mine: {tmp_path}/hands.csv:")
    assert not (tmp_path / "run" / "data" / "eval-id_mine.parquet").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("published", r"task.eval_sets.published: 'published' is no name .*; expected id_\.\."),
        ("id_unseen", r"task.eval_sets.id_unseen: 'id_unseen' is a split already"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_runs(name, message, tmp_path):
    with pytest.raises(SftrlError, match=message):
        load_recipe("fig6_gp_l", "smoke", [f"task.eval_sets={{{name}: {tmp_path}}}"])


def test_a_missing_file_and_a_look_without_images_are_refused(tmp_path):
    with pytest.raises(SftrlError, match="id_mine: /none/hands.csv: no such file"):
        load_recipe("fig6_gp_l", "smoke", ["task.eval_sets={id_mine: /none/hands.csv}"])
    (tmp_path / "hands.csv").write_text("cards\nK 5 2 4\n")
    with pytest.raises(
        SftrlError, match="'visual_mine' is about the look of images; expected modality 'image'"
    ):
        built(tmp_path / "run", f"task.eval_sets={{visual_mine: {tmp_path}/hands.csv}}")


def test_a_report_knows_what_a_set_is_compared_as():
    assert not is_ood("id_mine") and split_title("id_mine") == "In distribution: id_mine"
    assert (ood_kind("rule_mine"), split_title("rule_mine")) == ("rule", "OOD: rule_mine")
    assert ood_kind("visual_mine") == "visual"


HOME = [
    "task.routes.home={style: brick, seed: 0, routes: 20}",
    "task.routes.away=[{style: marble, seed: 1, routes: 6}]",
]


def test_given_routes_are_walked_in_their_order(tmp_path):
    (tmp_path / "routes.csv").write_text("route,rail_seed\n4,\n0,7\n4,\n")
    (tmp_path / "routes.json").write_text("[2, 5]")
    city = build_city(tmp_path / "city", "pastel", seed=3, routes=4, pictures=False).parent
    sets = f"task.eval_sets={{id_mine: {tmp_path}/routes.csv, rule_mine: {tmp_path}/routes.csv, "
    sets += f"visual_mine: {tmp_path}/routes.json, id_file: {city}/route_infos.json, id_city: {city}}}"
    recipe, layout = built(tmp_path / "run", *HOME, sets, name="fig6_virl_l")
    one, two = facts_of(layout, "id_mine"), facts_of(layout, "rule_mine")
    assert (
        [facts["route"]["index"] for facts in one] == [facts["route"]["index"] for facts in two] == [4, 0, 4]
    )
    assert one[1]["rail_seed"] == two[1]["rail_seed"] == 7 and one[0]["rail_seed"] != one[2]["rail_seed"]
    assert {facts["action_space"] for facts in one} == {"absolute"}
    assert {facts["action_space"] for facts in two} == {"relative"}
    away = facts_of(layout, "visual_mine")
    assert [facts["route"]["index"] for facts in away] == [2, 5]
    assert {round(facts["route"]["start"][0]) for facts in away} != {round(one[0]["route"]["start"][0])}
    routes = read_route_set(city).routes
    for split in ("id_file", "id_city"):
        facts = facts_of(layout, split)
        assert [tuple(one["route"]["start"][:2]) for one in facts] == [route.start for route in routes]
    assert recipe.task.eval_splits[-5:] == list(recipe.task.eval_sets)
    for split in recipe.task.eval_sets:
        assert validate_file(layout.eval_rows(split)).rows == len(facts_of(layout, split))
    assert "| eval-id_mine | 3 | RL / evaluation | id_mine |" in (layout.data / "dataset_card.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[99]", r"row 0: field 'route' is 99; expected the index of a good route in .*, 0 to 19"),
        ('["a"]', r"row 0: field 'route' is 'a', expected a whole number"),
        ('[{"route": 1, "city": 2}]', r"row 0: field 'city' is 2, expected 0 to 0"),
        ('[{"index": 1}]', r"row 0: unknown field 'index'"),
    ],
)
def test_a_wrong_route_is_named(text, message, tmp_path):
    (tmp_path / "routes.json").write_text(text)
    with pytest.raises(SftrlError, match=message):
        built(
            tmp_path / "run", *HOME, f"task.eval_sets={{id_mine: {tmp_path}/routes.json}}", name="fig6_virl_l"
        )


def test_a_list_becomes_a_file_of_rows_by_the_command(tmp_path):
    (tmp_path / "hands.csv").write_text("cards\nK 5 A 4\n3 3 8 8\n")
    out = tmp_path / "rows.parquet"
    words = [
        "data",
        "given",
        "--from",
        str(tmp_path / "hands.csv"),
        "--template",
        "compact",
        "--out",
        str(out),
    ]
    assert main([*words, "--split", "rule_mine"]) == 0
    report = validate_file(out)
    assert (report.rows, dict(report.splits)) == (2, {"rule_mine": 2})
    assert main([*words, "--split", "mine"]) == 2
    city = build_city(tmp_path / "city", "pastel", seed=3, routes=4, pictures=False).parent
    (tmp_path / "routes.csv").write_text("route\n2\n0\n")
    words = ["data", "given", "--task", "virl", "--routes", str(city), "--from", str(tmp_path / "routes.csv")]
    assert main([*words, "--split", "rule_mine", "--out", str(out)]) == 0
    rows = [json.loads(row["facts"]) for row in pq.read_table(out)["extra_info"].to_pylist()]
    assert [facts["route"]["index"] for facts in rows] == [2, 0]


def test_the_planner_counts_given_instances(tmp_path):
    (tmp_path / "hands.csv").write_text("cards\n" + "K 5 2 4\n" * 600)
    sets = f"task.eval_sets={{id_mine: {tmp_path}/hands.csv}}"
    recipe = load_recipe("fig6_gp_l", "laptop", [sets])
    without = load_recipe("fig6_gp_l", "laptop")
    more = sum(evaluated_hands(recipe)) - sum(evaluated_hands(without))
    assert more == 600
    assert sum(
        evaluated_hands(load_recipe("fig6_gp_l", "laptop", [sets, "budget.eval.hands_of.id_mine=9"]))
    ) == (sum(evaluated_hands(without)) + 9)


def test_text_of_rows_that_is_not_unicode_is_named(tmp_path):
    """Pages of a parquet file may hold any bytes; pyarrow decodes them when they are read as texts."""
    path = tmp_path / "rows.parquet"
    write_rows(path, rl_rows(Source("id", train=False), 4))
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    facts = table["extra_info"][1]["facts"].as_py().encode()
    path.write_bytes(path.read_bytes().replace(facts, b"\xcf\xff" + facts[2:]))
    with pytest.raises(SftrlError, match=r"rows\.parquet: not a parquet file, or a broken one"):
        load_eval_set(path)
