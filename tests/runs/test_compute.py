"""The compute formulas, worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.runs.compute import (
    PaperFormula,
    buffer_ratio,
    cost_of,
    flops_counted,
    flops_rl,
    flops_sft,
    paper_formula_absent,
    readable,
    scaled,
)
from sftrl_ext.runs.token_counts import NAMES, TokenCount

PAPER = PaperFormula()


def test_formulas():
    assert flops_sft(10, 3, 4) == 6 * 10 * 7
    assert flops_rl(10, 3, 4) == 6 * 10 * 7 + 2 * 10 * 6 * 4
    assert flops_rl(10, 3, 4, 5) == 6 * 10 * 7 + 2 * 10 * 5
    assert flops_rl(10, 3, 4, buffer_ratio=5.1) == pytest.approx(6 * 10 * 7 + 2 * 10 * 5.1 * 4)


def test_every_pass_is_counted_at_the_size_of_its_model():
    count = TokenCount(
        trained=4, generated=2, prefill=3, forward=5, trained_critic=7, forward_critic=11, sequence=1
    )
    assert flops_counted(10, count, 8) == 10 * (6 * 4 + 2 * (2 + 3 + 5)) + 8 * (6 * 7 + 2 * 11)
    assert flops_counted(10, count) == flops_counted(10, count, 10)


def test_an_update_of_the_papers_ppo():
    """Four epochs of actor and critic, old log-probabilities, reference and values, one rollout: 56 N D."""
    update = TokenCount(400, 30, 70, 200, 400, 100, 100)
    assert flops_counted(1, update) == 56 * 100
    assert flops_counted(1, TokenCount(100, 30, 70, 100, sequence=100)) == 10 * 100  # one epoch, no critic


counts = st.builds(TokenCount, *[st.floats(0, 1e6)] * len(NAMES))


@given(counts, counts, st.floats(1, 1e9))
def test_compute_adds_up_and_no_pass_is_free(first, second, size):
    whole = flops_counted(size, first + second, 0.5 * size)
    assert whole == pytest.approx(
        flops_counted(size, first, 0.5 * size) + flops_counted(size, second, 0.5 * size)
    )
    for name in NAMES:
        more = flops_counted(size, first + TokenCount(**{name: 1e6}))
        assert (more > flops_counted(size, first)) == (name != "sequence")


def test_both_arms_start_at_the_same_compute():
    init = TokenCount(trained=1000)
    sft = cost_of(7, init, rl=False, paper=PAPER)
    rl = cost_of(7, init, rl=False, paper=PAPER) + cost_of(7, TokenCount(), rl=True, paper=PAPER)
    assert sft == rl
    assert sft.paper == sft.counted == 42_000
    assert sft.tokens == 1000


def test_the_model_s_size_may_be_unknown():
    cost = cost_of(None, TokenCount(10) + TokenCount(5, 2, 3), rl=True, paper=PAPER)
    assert (cost.paper, cost.counted, cost.tokens) == (None, None, 20)
    assert cost.on("tokens") == 20


def test_without_the_papers_formula_the_counted_axis_stays():
    cost = cost_of(7, TokenCount(10), rl=True, paper=None)
    assert (cost + cost).counted == 2 * 6 * 7 * 10
    assert cost.paper is None and (cost + cost).paper is None


def test_ratio_of_the_task():
    assert buffer_ratio("gp_l/rule_ood") == 6
    assert buffer_ratio("virl_l/id") == 5.1


def test_a_token_of_the_papers_formula_counts_once_per_epoch_or_once():
    count = TokenCount(trained=400, sequence=100)
    assert PaperFormula(6).flops(1, count, rl=True) == 18 * 400
    assert PaperFormula(6, rl_tokens="once").flops(1, count, rl=True) == 18 * 100
    assert PaperFormula(6, rl_tokens="once").flops(1, count, rl=False) == 6 * 400


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (TokenCount(trained=400, sequence=100), None),
        (TokenCount(trained=300, trained_critic=400, sequence=100), None),  # the critic was trained before
        (TokenCount(trained=100, sequence=100), "4 epochs over each buffer, and stage `rl-s0` makes 1"),
        (TokenCount(trained=200, sequence=100), "makes 2"),
        (TokenCount(trained=400), "do not tell its epochs"),
    ],
)
def test_the_papers_formula_holds_for_four_epochs(count, reason):
    absent = paper_formula_absent({"rl-s0": count})
    assert absent is None if reason is None else reason in absent


@pytest.mark.parametrize(
    ("value", "axis", "words"),
    [
        (3.53e13, "paper", "35.3 TFLOP"),
        (2e18, "counted", "2 EFLOP"),
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
