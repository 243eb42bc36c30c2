"""Broken parquet files end `sftrl validate` in one line: the file, what was found, and exit status 2."""

from __future__ import annotations

import copy
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.validate import validate_file
from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "good.parquet"
    assert main(["data", "sft", "--rows", "5", "--out", str(path)]) == 0
    return path


def test_sixty_files_of_damaged_bytes(good, tmp_path, capsys):
    data, random_bytes = good.read_bytes(), random.Random(0)
    broken = tmp_path / "broken.parquet"
    statuses = []
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(random_bytes.choice([1, 8, 50])):
            # Half of the damage is in the footer, which is a small part of the file.
            first = random_bytes.choice([0, len(damaged) - 2000])
            damaged[random_bytes.randrange(first, len(damaged))] = random_bytes.randrange(256)
        broken.write_bytes(damaged)
        statuses.append(main(["validate", str(broken)]))
        error = capsys.readouterr().err
        assert statuses[-1] == 0 or error.startswith(f"error: {broken}: ") and error.count("\n") == 1, error
    assert statuses.count(2) > 30


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("prompt", 0), r"prompt\[0\]"),
        (("prompt", 0, "content"), r"prompt\[0\]\.content"),
        (("messages", 1, "role"), r"messages\[1\]\.role"),
        (("train_turns", 0), r"train_turns\[0\]"),
        (("extra_info", "split"), r"extra_info\.split"),
        (("extra_info", "index"), r"extra_info\.index"),
        (("data_source",), "data_source"),
        (("reward_model", "ground_truth"), r"reward_model\.ground_truth"),
    ],
)
def test_a_null_is_named_by_row_and_column(good, tmp_path, path, message):
    table = pq.read_table(good)
    rows = copy.deepcopy(table.to_pylist())
    place = rows[3]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "null.parquet")
    with pytest.raises(SftrlError, match=rf"null\.parquet: row 3: column '{message}.*' is null"):
        validate_file(tmp_path / "null.parquet")
