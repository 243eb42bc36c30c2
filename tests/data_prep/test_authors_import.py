from __future__ import annotations

import json
import tracemalloc

import pyarrow.parquet as pq
import pytest

import data_prep.authors as authors
from data_prep.authors import import_authors, read_records
from data_prep.schema import IMAGE_SCHEMA, SCHEMA, read_schema
from data_prep.validate import validate_file
from sftrl_ext.envs import make_episode
from sftrl_ext.errors import SftrlError

ANSWER = "{\n \"cards\": ['K', '5', 'A', '4'],\n \"number\": [13, 5, 1, 4],\n \"formula\": \"13+5*1+4=24\"\n}"
RIGHT = ANSWER.replace("13+5*1+4", "(13-5)*(4-1)")


def _record(answer=RIGHT, image=None, **more):
    turns = [{"from": "human", "value": "Cards: K 5 A 4 ♠"}, {"from": "gpt", "value": answer}]
    return {"image": image, "conversations": turns} | more


def _write(path, records, **options):
    path.write_text(json.dumps(records, **options), encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_records_are_read_whole_however_the_file_is_cut(tmp_path, monkeypatch, chunk, options):
    monkeypatch.setattr(authors, "_CHUNK", chunk)
    records = [_record(), _record("x" * 100), {"a": [1, 2.5, True, None, "]},{"]}, 12345]
    path = _write(tmp_path / "data.json", records, **options)
    assert list(read_records(path)) == list(enumerate(records))


@pytest.mark.parametrize("chunk", [1, 64, 1 << 20])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a JSON list"),
        ('{"a": 1}', "expected a JSON list"),
        ('[{"a": 1}, {"b": ', "record 1"),
        ('[{"a": 1}', "record 0: the list is not closed|record 1: not JSON"),
        ('[{"a": 1}, {"b" 2}, {"c": 3}, {"d": "padding padding padding padding"}]', "record 1: not JSON"),
        ('["never closed', "record 0: not JSON: Unterminated string"),
    ],
)
def test_a_broken_file_is_named_with_the_record(tmp_path, monkeypatch, chunk, text, words):
    monkeypatch.setattr(authors, "_CHUNK", chunk)
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(SftrlError, match=words) as error:
        list(read_records(path))
    assert "data.json" in str(error.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'[{"a": "\xff"}]', "UTF-8"),
        (b"[" * 100_000, "record 0: not JSON"),
        (b"[" + b"9" * 5000 + b"]", "record 0: not JSON"),
        (b'[{"conversations": [{"from": {}, "value": "x"}]}]', "found {'from': {}"),
    ],
)
def test_text_that_python_cannot_hold_is_named(tmp_path, data, words):
    (tmp_path / "data.json").write_bytes(data)
    with pytest.raises(SftrlError, match=words) as error:
        import_authors(tmp_path / "data.json", tmp_path / "out.parquet")
    assert "data.json" in str(error.value) and not (tmp_path / "out.parquet").exists()


def test_rows_keep_their_words_and_know_their_hand(tmp_path):
    path = _write(tmp_path / "data.json", [_record(), _record("I cannot tell")])
    out = tmp_path / "out.parquet"
    assert import_authors(path, out) == 2
    first, second = pq.read_table(out).to_pylist()
    assert first["prompt"] == [{"role": "user", "content": "Cards: K 5 A 4 ♠"}]
    assert first["messages"][1] == {"role": "assistant", "content": RIGHT, "loss_mask": 1}
    assert first["train_turns"] == [1]
    episode = make_episode(json.loads(first["extra_info"]["facts"]))
    assert (episode.rule.name, episode.numbers) == ("face_11_12_13", (13, 5, 1, 4))
    assert second["extra_info"]["facts"] == "{}"
    assert read_schema(out) is SCHEMA
    assert validate_file(out).rows == 2


def test_a_wrong_answer_is_found_by_validation(tmp_path):
    out = tmp_path / "out.parquet"
    import_authors(_write(tmp_path / "data.json", [_record(), _record(ANSWER)]), out)
    with pytest.raises(SftrlError, match="row 1: column 'messages': the answer at turn 1 .* 'wrong_value'"):
        validate_file(out)


def test_multi_turn_rows_and_which_turns_are_trained(tmp_path):
    record = _record()
    record["conversations"] = [
        {"from": "system", "value": "Play."},
        {"from": "human", "value": "Cards"},
        {"from": "gpt", "value": "hm"},
        {"from": "human", "value": "no"},
        {"from": "gpt", "value": RIGHT},
    ]
    path, out = _write(tmp_path / "data.json", [record]), tmp_path / "out.parquet"
    for train, turns in (("all", [2, 4]), ("last", [4])):
        import_authors(path, out, train=train)
        (row,) = pq.read_table(out).to_pylist()
        assert row["train_turns"] == turns
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]


def test_images_become_paths(tmp_path):
    shown = _record(image="a.png")
    shown["conversations"][0]["value"] = "<image> Which cards?"
    both = _record(image=["b.png", "c.png"])
    both["conversations"][0]["value"] = "<image><image> Which cards?"
    path, out = tmp_path / "data.json", tmp_path / "out.parquet"
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).touch()
    _write(path, [shown, both, _record()])
    import_authors(path, out, images=True, image_folder=folder)
    assert read_schema(out) is IMAGE_SCHEMA
    images = [[image["path"] for image in row] for row in pq.read_table(out)["images"].to_pylist()]
    assert images == [[f"{folder}/a.png"], [f"{folder}/b.png", f"{folder}/c.png"], []]
    with pytest.raises(SftrlError, match="record 0: 'image' is 'a.png'; expected null where cards"):
        import_authors(path, out)
    with pytest.raises(SftrlError, match=r"record 1: 'image' names .*c.png; expected the path of a file"):
        (folder / "c.png").unlink()
        import_authors(path, out, images=True, image_folder=folder)
    with pytest.raises(SftrlError, match="record 0: 'conversations' has 0 times <image>; expected 1"):
        import_authors(_write(path, [_record(image="a.png")]), out, images=True, image_folder=folder)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"image": None}, "record 1: expected a non-empty list under 'conversations', found \\['image'\\]"),
        (7, "found int"),
        ({"conversations": []}, "non-empty list"),
        ({"conversations": [{"from": "human", "value": 3}]}, "expected turns"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "expected turns .* found {'from': 'bot'"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "ends with 'gpt'"),
        (_record(image=3), "'image' is 3"),
        ({"conversations": ["of two\nlines"]}, r"found 'of two\\nlines'"),
        (
            {"conversations": [{"from": "human", "value": "x\ud800"}, {"from": "gpt", "value": "y"}]},
            r"record 1: a text has the lone surrogate '\\ud800' at character 1; expected Unicode",
        ),
    ],
)
def test_wrong_records(tmp_path, record, words):
    path = _write(tmp_path / "data.json", [_record(), record])
    with pytest.raises(SftrlError, match=words):
        import_authors(path, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_no_file_and_a_wrong_option(tmp_path):
    with pytest.raises(SftrlError, match="no such file"):
        import_authors(tmp_path / "none.json", tmp_path / "out.parquet")
    with pytest.raises(SftrlError, match="expected 'all' or 'last'"):
        import_authors(_write(tmp_path / "data.json", [_record()]), tmp_path / "out.parquet", train="first")


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(authors, "_CHUNK", 1 << 14)
    peaks = []
    for count in (500, 5000):
        path = _write(tmp_path / "data.json", [_record()] * count)
        tracemalloc.start()
        for _ in read_records(path):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000
