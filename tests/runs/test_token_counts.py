"""Token counts of stages, those of earlier versions completed from what the trainers logged."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.runs.token_counts import TokenCount, counts_of, read_token_counts

EARLIER = {"step": 2, "trained_tokens": 80, "generated_tokens": 6, "prefill_tokens": 50}
"""A line of an earlier version; its engine was taken to read every prompt anew."""


def read(tmp_path, line, logged=()):
    path = tmp_path / "rl-s0" / "tokens.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(line) + "\n")
    notes = []
    return read_token_counts(path, logged, notes)[line["step"]], notes


def test_a_line_round_trips(tmp_path):
    count = TokenCount(80, 6, 14, 40, 160, 20, 20)
    assert read(tmp_path, {"step": 2, **count.as_line()}) == (count, [])
    assert count.epochs == 8 and count.total == 100


def test_an_earlier_line_is_completed_by_the_logged_totals(tmp_path):
    totals = {"trained": 80, "generated": 6, "prefill": 14, "prefill_uncached": 50, "forward": 60}
    totals |= {"trained_critic": 40}
    logged = [(1, {"tokens/forward": 9.0}), (2, {f"tokens/{name}": float(n) for name, n in totals.items()})]
    count, notes = read(tmp_path, EARLIER, logged)
    assert count == TokenCount(80, 6, 14, 60, 40, 0, 20) and notes == []
    assert count.epochs == 4


def test_what_was_never_counted_is_said(tmp_path):
    count, notes = read(tmp_path, EARLIER, [(2, {"tokens/trained": 80.0})])
    assert count == TokenCount(80, 6, 50)
    assert notes and "rl-s0" in notes[0] and "lower bound" in notes[0]


def test_the_start_model_of_an_earlier_anchored_sft_is_counted(tmp_path):
    step = {"train/global_tokens": 40.0, "train/kl_start": 0.1}
    line = {"step": 2, "trained_tokens": 80, "generated_tokens": 0, "prefill_tokens": 0}
    count, notes = read(tmp_path, line, [(1, step), (2, step), (3, step)])
    assert count == TokenCount(80, forward=80) and notes == []


def test_totals_of_an_earlier_checkpoint_have_a_sequence():
    count = counts_of({"trained": 20, "generated": 6, "prefill": 14, "prefill_uncached": 50})
    assert count.sequence == 20 and count.epochs == pytest.approx(1)
