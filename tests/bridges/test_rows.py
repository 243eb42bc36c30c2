"""Rows for other libraries are those of `sftrl data`."""

from __future__ import annotations

import pytest

from data_prep.build import build_file
from data_prep.options import DataOptions
from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.errors import SftrlError


@pytest.mark.parametrize("train", [False, True])
def test_built_rows_are_those_of_a_file(tmp_path, train):
    out = tmp_path / "rows.parquet"
    build_file(DataOptions("rl", out, split="rule_ood", rows=6, seed=4, eval=not train))
    built = find_rows(task="general_points", split="rule_ood", rows=6, seed=4, train=train)
    assert built == find_rows(str(out))
    assert built.split == "rule_ood" and len(built.facts) == 6


def test_paths_are_given_as_texts(tmp_path):
    routes = build_city(tmp_path / "city", style="brick", routes=3, width=64)
    assert len(find_rows(task="virl", routes=str(routes), rows=2).facts) == 2


@pytest.mark.parametrize(
    ("option", "text"), [("spilt", "Did you mean 'split'"), ("out", "unknown option"), ("style", "--style")]
)
def test_options_that_are_not_for_these_rows_are_refused(option, text):
    with pytest.raises(SftrlError, match=text):
        find_rows(task="general_points", **{option: "id"})
