"""One token per row: parameters of each row, distribution, ban, reported log-probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.backends.hf.sampling import BatchSampler, Sampling
from sftrl_ext.errors import SftrlError

V = 12


def sample(sampler, logits, uniform):
    return sampler.sample(sampler.distribution(logits), uniform)


def kept(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """The distribution to sample from, one row, written the slow way."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    keep = order[:top_k] if top_k > 0 else order
    p_keep = p[keep] / p[keep].sum()
    if top_p < 1:
        keep = keep[: int(np.searchsorted(np.cumsum(p_keep), top_p)) + 1]
    out = np.zeros_like(p)
    out[keep] = p[keep] / p[keep].sum()
    return out


rows = st.tuples(
    st.integers(0, 10**6),
    st.floats(0.2, 3.0),
    st.sampled_from([1.0, 0.9, 0.5, 0.05]),
    st.sampled_from([-1, 0, 1, 3, V, 2 * V, 10**30, -(10**30)]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=5))
def test_every_row_follows_its_own_parameters(params):
    logits = np.stack([np.random.default_rng(seed).normal(size=V) * 2 for seed, *_ in params])
    sampler = BatchSampler([Sampling(temperature=t, top_p=p, top_k=k) for _, t, p, k in params])
    grid = (np.arange(200) + 0.5) / 200
    for u in grid[::7]:
        tokens, log_probs = sample(sampler, torch.tensor(logits), np.full(len(params), u))
        for i, (_, t, p, k) in enumerate(params):
            expected = kept(logits[i], t, p, k)
            assert expected[tokens[i]] > 0
            assert log_probs[i].exp() == pytest.approx(expected[tokens[i]], rel=1e-4)
            # The token is the inverse of the cumulative distribution at u.
            below = expected[: tokens[i]].sum()
            assert below - 1e-5 <= u <= below + expected[tokens[i]] + 1e-5


def test_frequencies_are_the_probabilities():
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(0)).repeat(20_000, 1)
    sampler = BatchSampler([Sampling(temperature=1.5)] * 20_000)
    tokens, _ = sample(sampler, logits, np.random.default_rng(0).random(20_000))
    found = torch.bincount(tokens, minlength=V) / 20_000
    assert (found - (logits[0] / 1.5).softmax(-1)).abs().max() < 0.012


def test_greedy_among_sampled_rows_reports_the_models_own_probability():
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    sampler = BatchSampler([Sampling(temperature=0), Sampling(temperature=0.5), Sampling(temperature=0)])
    tokens, log_probs = sample(sampler, logits, np.array([0.99, 0.5, 0.01]))
    assert tokens[[0, 2]].tolist() == logits[[0, 2]].argmax(-1).tolist()
    assert torch.allclose(log_probs[[0, 2]], logits[[0, 2]].log_softmax(-1).max(-1).values)


def test_banned_tokens_never_come():
    banned = torch.zeros(V, dtype=torch.bool)
    banned[[0, 5, V - 1]] = True
    logits = torch.zeros(1000, V)
    logits[:, 5] = 50.0
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(top_k=2), Sampling(top_p=0.3)):
        sampler = BatchSampler([sampling] * 1000, banned)
        tokens, log_probs = sample(sampler, logits, np.linspace(0, 1, 1000, endpoint=False))
        assert not banned[tokens].any() and torch.isfinite(log_probs).all()


def test_the_ends_of_the_unit_interval_give_possible_tokens():
    logits = torch.full((2, V), -torch.inf)
    logits[:, 3] = logits[:, 4] = 0.0
    tokens, _ = sample(BatchSampler([Sampling()] * 2), logits, np.array([0.0, np.nextafter(1.0, 0.0)]))
    assert tokens.tolist() == [3, 4]


def test_penalties_are_subtracted_for_what_is_written():
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(2))
    written = [[4, 4, 7], [4], []]
    params = [
        Sampling(presence_penalty=1.5, frequency_penalty=0.5, temperature=2.0),
        Sampling(),
        Sampling(presence_penalty=1.5),
    ]
    sampler = BatchSampler(params, written=written)
    log_probs = sampler.distribution(logits)
    changed = logits.clone()
    changed[0, 4] -= 1.5 + 2 * 0.5
    changed[0, 7] -= 1.5 + 0.5
    changed[0] /= 2
    assert torch.allclose(log_probs, changed.log_softmax(-1))
    # The lists grow while a response does.
    written[2].append(3)
    changed[2, 3] -= 1.5
    assert torch.allclose(sampler.distribution(logits), changed.log_softmax(-1))


class Only:
    """A constraint to some tokens."""

    def __init__(self, *tokens):
        self.mask = torch.zeros(V - 2, dtype=torch.bool)
        self.mask[list(tokens)] = True

    def allowed(self):
        return self.mask


def test_a_constraint_leaves_its_tokens_alone():
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(3))
    params = [Sampling(logprobs=5), Sampling(logprobs=2), Sampling(logprobs=0)]
    sampler = BatchSampler(params, constraints=[Only(2, 9), None, Only(0)])
    log_probs = sampler.distribution(logits)
    assert torch.allclose(log_probs[0, [2, 9]], logits[0, [2, 9]].log_softmax(-1))
    assert log_probs[0].exp().sum() == pytest.approx(1) and (log_probs[0] > -torch.inf).sum() == 2
    assert torch.allclose(log_probs[1], logits[1].log_softmax(-1))
    top = sampler.most_probable(log_probs)
    assert {token for token, _ in top[0]} == {2, 9} and len(top[1]) == 2 and 2 not in top
    assert top[1][0] == (logits[1].argmax().item(), pytest.approx(log_probs[1].max().item()))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"max_tokens": 0}, {"frequency_penalty": -3}],
    ids=str,
)
def test_values_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(SftrlError, match=next(iter(wrong))):
        Sampling(**wrong)
