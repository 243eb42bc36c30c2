"""Grouped writes of rows: what is written together, and who learns of an error."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("verl")

import torch

from sftrl_ext.rollout.row_writer import MOST_ROWS, RowWriter


def write(episodes, put):
    async def go():
        writer = RowWriter(put)
        return await asyncio.gather(
            *(writer.write(partition, keys, rows, [{}] * len(keys)) for partition, keys, rows in episodes),
            return_exceptions=True,
        )

    return asyncio.run(go())


def row(size, **columns):
    return {"ids": torch.arange(size), **columns}


def test_rows_with_the_same_columns_are_written_together():
    sent = []

    async def put(**request):
        sent.append(request)

    episodes = [
        ("train", ["a_0"], [row(2)]),
        ("train", ["b_0", "b_1"], [row(1), row(3)]),
        ("train", ["c_0"], [row(1, more=1)]),
        ("val", ["d_0"], [row(1)]),
    ]
    assert write(episodes, put) == [None] * 4
    assert [(request["partition_id"], request["keys"]) for request in sent] == [
        ("train", ["a_0", "b_0", "b_1"]),
        ("train", ["c_0"]),
        ("val", ["d_0"]),
    ]
    assert [ids.tolist() for ids in sent[0]["fields"]["ids"].unbind()] == [[0, 1], [0], [0, 1, 2]]
    assert list(sent[1]["fields"]["more"]) == [1] and len(sent[0]["tags"]) == 3


def test_a_request_has_a_bounded_number_of_rows():
    counts = []

    async def put(**request):
        counts.append(len(request["keys"]))

    write([("train", [str(n)], [row(1)]) for n in range(2 * MOST_ROWS + 1)], put)
    assert counts == [MOST_ROWS, MOST_ROWS, 1]


def test_an_error_reaches_the_episodes_of_its_request_only():
    async def put(**request):
        if request["partition_id"] == "val":
            raise ConnectionError("gone")

    results = write([("train", ["a"], [row(1)]), ("val", ["b"], [row(1)]), ("val", ["c"], [row(1)])], put)
    assert results[0] is None and [str(error) for error in results[1:]] == ["gone", "gone"]
