"""The audit of held-out bindings: what it reads in texts, and the planted rows that it refuses."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.general_points import sft_rows, suboptimal_rows
from data_prep.held_out import bindings_text, check_held_out, stated_bindings
from data_prep.schema import SCHEMA
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.prompts import TEMPLATES, load_template
from sftrl_ext.envs.general_points.rules import RULES, bindings_of, held_out_bindings
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.runs.layout import RunLayout

HELD = held_out_bindings(["face_10", "face_11_12_13", "J=5 Q=5 K=5"])
GAME = {"num_cards": 3, "targets": (1, 30)}


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("J=10 Q=3 K=7 cards K 5 J target 24", "J=10 Q=3 K=7"),
        ("A and J each count as 1, Q and K each count as 12, and every other card", "J=1 Q=12 K=12"),
        ("All cards 'J', 'Q', and 'K' count as '10'.", "J=10 Q=10 K=10"),
        ("jacks, Queens and kings count as 11, 12, and 13 respectively", "J=11 Q=12 K=13"),
        ("K: 13, J is 4", "J=4 K=13"),
        ('{"cards": ["K", "5", "J"], "number": [10, 5, 3], "formula": "10+5-3=12"}', ""),
        ("K=7, 7/7=1, 9-1=8", "K=7"),
        ("a king is dealt 3 times; Q and 5 cards", ""),
    ],
)
def test_bindings_that_a_text_states(text, stated):
    assert bindings_text(stated_bindings(text)) == stated


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("rule", [*RULES, "faces_1_1_13", "faces_3_7_9"])
def test_every_template_is_read(template, rule):
    text = load_template(template).rule(RULES[rule])
    assert stated_bindings(text) == frozenset(bindings_of(RULES[rule]))


@pytest.fixture(scope="module")
def dialogues():
    source = Source("other_faces", settings=PlaySettings(template="compact"), hands=GAME)
    return pa.concat_tables(suboptimal_rows(source, 6))


def planted(path, dialogues, change):
    """A file of dialogues whose row 3 is changed."""
    rows = dialogues.to_pylist()
    change(rows[3])
    write_rows(path, [pa.Table.from_pylist(rows, SCHEMA)])
    return path


def set_rule(rule):
    def change(row):
        facts = json.loads(row["extra_info"]["facts"]) | {"rule": rule}
        row["extra_info"]["facts"] = json.dumps(facts)

    return change


def set_prompt(text):
    def change(row):
        row["prompt"][0]["content"] = text

    return change


def set_reply(row):
    row["messages"][2]["content"] = "wrong: a queen counts as 12"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_rule("face_10"), "column 'extra_info.facts' states the held-out J=10; expected a row without"),
        (set_rule("faces_1_2_13"), "column 'extra_info.facts' states the held-out K=13"),
        (set_rule("all_5"), "column 'extra_info.facts' states the held-out J=5 Q=5 K=5"),
        (set_prompt("Jacks count as 3, queens as 4. K=13"), "column 'prompt' states the held-out K=13"),
        (set_prompt("J, Q and K each count as 10"), "column 'prompt' states the held-out"),
        (set_prompt("J=1 Q=1 K=1 cards K 5 2"), "column 'prompt' states J=1 Q=1 K=1; expected J="),
        (set_prompt("cards K 5 2"), "column 'prompt' states no binding; expected J="),
        (set_reply, "column 'messages' states the held-out Q=12"),
        (set_rule("faces_1_2"), "card rule 'faces_1_2': expected faces_"),
        (lambda row: row["extra_info"].update(facts="{}"), "expected the fact 'rule'"),
    ],
)
def test_a_planted_row_is_refused(tmp_path, dialogues, change, words):
    with pytest.raises(SftrlError, match=rf"rows\.parquet: row 3: .*{words}"):
        check_held_out(planted(tmp_path / "rows.parquet", dialogues, change), HELD)


def test_rows_without_what_is_held_out_are_counted(tmp_path, dialogues):
    check = check_held_out(planted(tmp_path / "rows.parquet", dialogues, lambda row: None), HELD)
    assert (check.file, check.rows) == ("rows", 6)
    source = Source(["other_faces", "all_7"], settings=PlaySettings(modality="image"), hands=GAME)
    write_rows(tmp_path / "images.parquet", sft_rows(source, 50))
    assert check_held_out(tmp_path / "images.parquet", HELD).rows == 50


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """A file of which a tenth states a rule that is held out."""
    path = tmp_path_factory.mktemp("exposed") / "rows.parquet"
    sources = [
        Source(s, settings=PlaySettings(template="compact"), hands=GAME) for s in ("other_faces", "rule_ood")
    ]
    write_rows(path, [*sft_rows(sources[0], 90), *sft_rows(sources[1], 10)])
    return path


def test_rows_of_an_exposed_split_state_their_own_rule_and_are_counted(exposed):
    assert check_held_out(exposed, HELD, {"rule_ood": 0.1}).exposed == {"rule_ood": 10}
    with pytest.raises(SftrlError, match="row 90: .* states the held-out"):
        check_held_out(exposed, HELD)
    with pytest.raises(SftrlError, match="row 90: .* states the held-out"):
        check_held_out(exposed, HELD, {"rule_ood": 0.0})
    with pytest.raises(SftrlError, match=r"found 10 rows of split 'rule_ood'; expected 0.05 of 100"):
        check_held_out(exposed, HELD, {"rule_ood": 0.05})


def test_a_row_of_an_exposed_split_states_no_other_rule(tmp_path, exposed):
    rows = pq.read_table(exposed).to_pylist()
    set_rule("face_10")(rows[95])
    rows[95]["prompt"][0]["content"] = "J=10 Q=10 K=10 cards K 5 2"
    write_rows(tmp_path / "rows.parquet", [pa.Table.from_pylist(rows, SCHEMA)])
    with pytest.raises(SftrlError, match="row 95: .* states the held-out J=10"):
        check_held_out(tmp_path / "rows.parquet", HELD, {"rule_ood": 0.1})


def test_an_exposed_split_has_one_rule(exposed):
    with pytest.raises(SftrlError, match="split 'other_faces' has rules that are drawn"):
        check_held_out(exposed, HELD, {"other_faces": 0.9})


SMALL = [
    *("budget.base.rows=64", "budget.dialogues.rows=32", "budget.init.rows=32", "budget.sft.rows=16"),
    *("budget.rl.rows=16", "budget.eval.hands=8", "task.cards=3", "task.targets=[1,30]"),
]


def build(root, *words, name="fig6_gp_l"):
    layout = RunLayout(root)
    build_data(load_recipe(name, "smoke", [*SMALL, *words]), layout)
    return layout


def test_the_data_stage_checks_its_first_stages(tmp_path):
    held = "task.held_out=[face_10,face_11_12_13]"
    layout = build(tmp_path / "right", "task.pretrain_splits=[other_faces]", held)
    card = (layout.data / "dataset_card.md").read_text()
    single = ("J=10", "Q=10", "K=10", "J=11", "Q=12", "K=13")
    first, other = (", ".join(f"`{held}`" for held in names) for names in (single, single[3:]))
    assert f"| base | 64 | {first} |" in card and f"| dialogues | 32 | {first} |" in card
    assert f"| init | 32 | {other} |" in card, "the init trains face_10"
    assert "| 1 to 30 |" in card and "drawn rules" in card


def test_the_data_stage_refuses_a_split_with_a_held_out_rule(tmp_path):
    words = ["task.pretrain_splits=[other_faces,rule_ood]", "task.held_out=[face_11_12_13]"]
    with pytest.raises(SftrlError, match=r"base.parquet: row \d+: .* states the held-out .*expected a row"):
        build(tmp_path, *words)
    assert not (tmp_path / "data" / "dialogues.parquet").exists()


def test_an_init_states_only_the_rule_it_trains(tmp_path):
    held = ["task.pretrain_splits=[all_7]", "task.held_out=[face_10,'Q=3']"]
    with pytest.raises(SftrlError, match=r"init.parquet: row \d+: .* states the held-out Q=3"):
        build(tmp_path / "family", *held, "task.train_split=other_faces")
    build(tmp_path / "rule", *held)


def test_a_template_cannot_state_another_rule_than_the_facts(tmp_path):
    template = tmp_path / "mine.yaml"
    template.write_text(
        "prompt: $rule cards $cards target $target\n"
        "rule: J=$jack Q=$queen K=10\n"
        'answer: \'{"formula": "$formula=$target"}\'\n'
        "feedback: {otherwise: nope}\n"
    )
    words = ["task.pretrain_splits=[other_faces]", "task.held_out=[face_10]", f"task.template={template}"]
    with pytest.raises(SftrlError, match="base.parquet: row 0: column 'prompt' states the held-out K=10"):
        build(tmp_path / "run", *words)


def test_a_task_without_card_rules_holds_none_out(tmp_path):
    words = ["task.held_out=[face_10]", "task.routes.home.routes=20", "budget.base.rows=10"]
    with pytest.raises(SftrlError, match="task 'virl' has no card rules"):
        build_data(load_recipe("fig6_virl_l", "smoke", words), RunLayout(tmp_path))
