from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.row_files import RowsRequest, import_rows
from data_prep.schema import (
    IMAGE_SCHEMA,
    MESSAGE,
    SCHEMA,
    check_schema,
    dialogues_array,
    messages_array,
    read_schema,
    with_loss_mask,
)
from data_prep.sources import Source
from data_prep.validate import validate_file
from data_prep.writer import write_rows
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError
from tests.rows import bare

WITHOUT_MASK = pa.schema(
    [field if field.name != "messages" else pa.field("messages", pa.list_(MESSAGE)) for field in SCHEMA]
)
"""Schema of files of before, whose messages have no mask of loss."""


def without_mask(table):
    rows = [{**row, "messages": bare(row["messages"])} for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, WITHOUT_MASK)


@pytest.fixture
def table():
    return pa.concat_tables(rl_rows(Source("id"), 20))


def test_messages_arrays():
    column = messages_array(["system", "user"], [pa.array(["a", "b"]), pa.array(["c", "d"])])
    assert column.to_pylist() == [
        [{"role": "system", "content": first}, {"role": "user", "content": second}]
        for first, second in (("a", "c"), ("b", "d"))
    ]
    ragged = dialogues_array([["user"], ["user", "assistant"], []], [["a"], ["b", "c"], []])
    assert ragged.to_pylist() == [
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
        [],
    ]


def test_both_schemas_are_accepted():
    assert check_schema(SCHEMA, "x") is SCHEMA
    assert check_schema(IMAGE_SCHEMA, "x") is IMAGE_SCHEMA


def test_wrong_columns_are_named(tmp_path, table):
    path = tmp_path / "rows.parquet"
    for wrong, words in (
        (
            table.drop_columns(["reward_model"]),
            "rows.parquet: column 'reward_model' is missing; found data_source, ",
        ),
        (table.append_column("more", pa.array([1] * 20)), "unexpected column 'more'"),
        (
            table.set_column(0, "data_source", pa.array([1] * 20)),
            "column 'data_source' has type int64, expected string",
        ),
    ):
        pq.write_table(wrong, path)
        with pytest.raises(SftrlError, match=words):
            read_schema(path)


def test_what_is_no_file_of_rows(tmp_path):
    with pytest.raises(SftrlError, match="no such file"):
        read_schema(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(SftrlError, match="not a parquet file"):
        read_schema(tmp_path / "text.parquet")


def test_an_interrupted_build_leaves_nothing_new(tmp_path, table):
    path = tmp_path / "rows.parquet"

    def broken():
        yield table
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, broken())
    assert list(tmp_path.iterdir()) == []
    write_rows(path, [table])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, broken())
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
    assert path.read_bytes() == before


def test_a_killed_build_leaves_no_file_of_that_name(tmp_path):
    """Even a process that cannot clean up leaves the name free."""
    import os
    import signal
    import subprocess
    import sys

    path = tmp_path / "rows.parquet"
    code = (
        "import os, signal, sys\n"
        "from data_prep.general_points import rl_rows\n"
        "from data_prep.sources import Source\n"
        "from data_prep.writer import write_rows\n"
        "def tables():\n"
        "    yield from rl_rows(Source('id'), 600)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_rows(sys.argv[1], tables())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert list(tmp_path.glob("*.parquet")) == []


def test_writing_makes_the_folder_and_refuses_other_tables(tmp_path, table):
    path = tmp_path / "a" / "b" / "rows.parquet"
    assert write_rows(path, [table, table]) == 40
    assert pq.ParquetFile(path).num_row_groups == 2
    assert read_schema(path) is SCHEMA
    with pytest.raises(SftrlError, match="column 'prompt' is missing"):
        write_rows(path, [table.drop_columns(["prompt"])])
    with pytest.raises(SftrlError, match="is a folder"):
        write_rows(tmp_path, [table])
    assert pq.read_table(path).num_rows == 40


def test_no_rows_are_a_valid_file(tmp_path):
    path = tmp_path / "rows.parquet"
    assert write_rows(path, rl_rows(Source("id"), 0)) == 0
    assert read_schema(path) is SCHEMA


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path):
    old, young = tmp_path / ".rows.parquet.abc.part", tmp_path / ".rows.parquet.def.part"
    for part in (old, young):
        part.write_bytes(b"half a file")
    os.utime(old, (0, 0))
    write_rows(tmp_path / "rows.parquet", rl_rows(Source("id"), 3))
    assert not old.exists() and young.exists()


def test_the_mask_of_loss_is_what_the_turns_say():
    """Of any chunks, with rows without messages, and again where the mask is wrong or not there."""
    table = pa.concat_tables(suboptimal_rows(Source("id"), 40))
    table = pa.concat_tables([table, *rl_rows(Source("id"), 3), table])
    wanted = [
        [int(turn in row["train_turns"]) for turn in range(len(row["messages"]))] for row in table.to_pylist()
    ]
    assert any(0 in row[1::2] for row in wanted) and [] in wanted

    def masks(rows):
        return [[message["loss_mask"] for message in row] for row in rows["messages"].to_pylist()]

    assert masks(table) == masks(with_loss_mask(table)) == wanted
    assert check_schema(WITHOUT_MASK, "x") is SCHEMA
    assert with_loss_mask(without_mask(table)).equals(table.combine_chunks())
    assert with_loss_mask(table.slice(7, 60)).equals(table.slice(7, 60).combine_chunks())


def test_an_older_file_is_read_and_gets_its_mask(tmp_path):
    older = without_mask(pa.concat_tables(sft_rows(Source("id"), 5)))
    pq.write_table(older, tmp_path / "old.parquet")
    assert validate_file(tmp_path / "old.parquet").sft_rows == 5
    new = tmp_path / "new.parquet"
    import_rows(tmp_path / "old.parquet", new, RowsRequest("sft", 12, TaskConfig()))
    assert [row["messages"][-1]["loss_mask"] for row in pq.read_table(new).to_pylist()] == [1] * 12
