"""The compute formulas, worked by hand."""

from __future__ import annotations

import pytest

from sftrl_ext.reports.compute import (
    buffer_ratio,
    cost_of,
    flops_measured,
    flops_rl,
    flops_sft,
    readable,
    scaled,
)
from sftrl_ext.reports.runfiles import TokenCount


def test_formulas():
    assert flops_sft(10, 3, 4) == 6 * 10 * 7
    assert flops_rl(10, 3, 4) == 6 * 10 * 7 + 2 * 10 * 6 * 4
    assert flops_rl(10, 3, 4, 5) == 6 * 10 * 7 + 2 * 10 * 5
    assert flops_rl(10, 3, 4, buffer_ratio=5.1) == pytest.approx(6 * 10 * 7 + 2 * 10 * 5.1 * 4)
    assert flops_measured(10, 4, 2, 3) == 6 * 10 * 4 + 2 * 10 * 5


def test_both_arms_start_at_the_same_compute():
    init = TokenCount(trained=1000)
    sft = cost_of(7, init, rl=False, ratio=6)
    rl = cost_of(7, init, rl=False, ratio=6) + cost_of(7, TokenCount(), rl=True, ratio=6)
    assert sft == rl
    assert sft.paper == sft.measured == 42_000
    assert sft.tokens == 1000


def test_the_model_s_size_may_be_unknown():
    cost = cost_of(None, TokenCount(10) + TokenCount(5, 2, 3), rl=True, ratio=6)
    assert (cost.paper, cost.measured, cost.tokens) == (None, None, 20)
    assert cost.on("tokens") == 20


def test_ratio_of_the_task():
    assert buffer_ratio("gp_l/rule_ood") == 6
    assert buffer_ratio("virl_l/id") == 5.1


@pytest.mark.parametrize(
    ("value", "axis", "words"),
    [
        (3.53e13, "paper", "35.3 TFLOP"),
        (2e18, "measured", "2 EFLOP"),
        (0, "paper", "0 FLOP"),
        (5.6e6, "tokens", "5.6 M tokens"),
        (2e9, "tokens", "2 B tokens"),
        (12, "tokens", "12 tokens"),
    ],
)
def test_readable(value, axis, words):
    assert readable(value, axis) == words


def test_scaled_divisor_matches_its_unit():
    assert scaled(4.2e15, "paper") == (1e15, "PFLOP")
