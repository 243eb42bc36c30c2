"""Token counts of stages in ``tokens.jsonl``."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.token_files import read_token_counts


def test_a_line_round_trips(tmp_path):
    count = TokenCount(80, 6, 14, 40, 160, 20, 20)
    path = tmp_path / "tokens.jsonl"
    path.write_text(json.dumps({"step": 2, **count.as_line()}) + "\n")
    assert read_token_counts(path) == {2: count}
    assert count.epochs == 8 and count.total == 100


def test_a_line_without_a_count_is_refused(tmp_path):
    path = tmp_path / "tokens.jsonl"
    path.write_text(json.dumps({"step": 2, "trained_tokens": 80, "generated_tokens": 6, "prefill_tokens": 5}))
    with pytest.raises(SftrlError, match=r"tokens\.jsonl, line 1: key 'forward_tokens'"):
        read_token_counts(path)
