from __future__ import annotations

import copy

import pyarrow as pa
import pytest

from data_prep.build import build_file
from data_prep.card import inspect_file, write_card
from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.options import DataOptions
from data_prep.schema import SCHEMA
from data_prep.sources import Source
from data_prep.splits import SPLITS
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.errors import SftrlError


@pytest.mark.parametrize(
    ("split", "modality"),
    [(name, "text") for name, split in SPLITS._items.items() if not split.look]
    + [("face_10", "text"), ("large", "text")]
    + [(name, "image") for name in SPLITS],
)
def test_every_split_accepts_its_own_answers(tmp_path, split, modality):
    path = tmp_path / "rows.parquet"
    source = Source(split, train=False, settings=PlaySettings(modality=modality))
    for builder, dialogues in ((rl_rows, 0), (sft_rows, 60), (suboptimal_rows, 60)):
        write_rows(path, builder(source, 60))
        report = validate_file(path)
        assert (report.rows, report.sft_rows, report.turns) == (60, dialogues, dialogues)
        assert dict(report.splits) == {split: 60}
        assert "60 rows are valid" in str(report)


def _break(row, change):
    row = copy.deepcopy(row)
    change(row)
    return row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["prompt"][0].update(content="hi"), "column 'prompt' has at message 0"),
        (
            lambda r: r["prompt"].append({"role": "user", "content": "x"}),
            "'prompt' has 2 messages, expected 1",
        ),
        (lambda r: r["messages"][-1].update(content="24"), "turn .* carries loss but is graded 'unparsable'"),
        (lambda r: r["messages"][2].update(content="try harder"), "column 'messages' has at message 2"),
        (
            lambda r: r["messages"].append({"role": "user", "content": "more", "loss_mask": 0}),
            "column 'messages' has",
        ),
        (lambda r: r.update(train_turns=[0]), "'train_turns' has 0, which is no assistant turn"),
        (lambda r: r.update(train_turns=[99]), "'train_turns' has 99"),
        (lambda r: r.update(train_turns=[]), "'train_turns' is empty"),
        (lambda r: r["messages"][-1].update(loss_mask=0), r"has a loss_mask at \[\]; expected the turns"),
        (lambda r: r["messages"][0].update(loss_mask=1), r"has a loss_mask at \[0, \d+\]; expected"),
        (lambda r: r["extra_info"].update(facts="{"), "differs from"),
        (
            lambda r: (r["extra_info"].update(facts="{"), r["reward_model"].update(ground_truth="{")),
            "expected the JSON text",
        ),
        (lambda r: r.update(data_source=""), "column 'data_source' is empty"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_row(tmp_path, change, words):
    path = tmp_path / "rows.parquet"
    rows = pa.concat_tables(suboptimal_rows(Source("id"), 5)).to_pylist()
    rows[3] = _break(rows[3], change)
    write_rows(path, [pa.Table.from_pylist(rows, SCHEMA)])
    with pytest.raises(SftrlError, match=f"rows.parquet: row 3: .*{words}"):
        validate_file(path)
    assert validate_file(path, limit=3).rows == 3


def test_the_card_counts_and_shows_overlap(tmp_path):
    files = []
    for name, rows in (
        ("train", sft_rows(Source("id", seed=5), 3000)),
        ("id", rl_rows(Source("id", train=False), 100)),
        ("id_unseen", rl_rows(Source("id_unseen", train=False), 100)),
    ):
        files.append(tmp_path / f"{name}.parquet")
        write_rows(files[-1], rows)
    facts = inspect_file(files[0])
    assert facts.rows == facts.answered == facts.splits["id"] == 3000
    assert facts.seeds == {5}
    text = write_card(files, tmp_path / "dataset_card.md")
    assert (tmp_path / "dataset_card.md").read_text() == text
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    assert ["train", "3,000", "SFT", "id", "face_10", "5", "default"] in [line[:7] for line in lines]
    start = lines.index(["", "train", "id", "id_unseen"]) + 2
    overlap = [[int(cell) for cell in line[1:]] for line in lines[start : start + 3]]
    assert overlap[0][2] == overlap[2][0] == overlap[1][2] == 0
    assert overlap[0][1] > 0
    assert overlap[2][2] == len(inspect_file(files[2]).tasks["general_points"].multisets)


def _request(tmp_path, **changes):
    return DataOptions(**(dict(kind="rl", rows=10, out=tmp_path / "rows.parquet") | changes))


def test_the_command_builds_every_kind(tmp_path):
    for kind in ("rl", "sft", "suboptimal"):
        request = _request(tmp_path, kind=kind, split="id, rule_ood", suits="red", draw="deck", eval=True)
        assert build_file(request) == 10
        assert validate_file(request.out).rows == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "sfx"}, "Did you mean 'sft'"),
        ({"kind": "import"}, "expected --from data.json"),
        ({"split": "id,rule_odd"}, "Did you mean 'rule_ood'"),
        ({"template": "nothing"}, "unknown prompt template"),
    ],
)
def test_wrong_requests(tmp_path, change, words):
    with pytest.raises(SftrlError, match=words):
        build_file(_request(tmp_path, **change))


def test_rows_with_failed_attempts_say_which_data_set_leaves_those_out(tmp_path):
    notes = []
    path = tmp_path / "dialogues.parquet"
    build_file(DataOptions("suboptimal", path, rows=5), notes.append)
    assert len(notes) == 1 and "verl's own trains on every assistant message" in notes[0]
    assert "only our data set of SFT reads it" in write_card([path], tmp_path / "card.md")
    build_file(DataOptions("rl", path, rows=5), notes.append)
    assert len(notes) == 1 and "SFT reads it" not in write_card([path], tmp_path / "card.md")
