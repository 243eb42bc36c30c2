"""Log-probabilities in chunks against verl's own, token by token."""

from __future__ import annotations

from types import ModuleType

import pytest

from sftrl_ext import verl_version
from sftrl_ext.errors import SftrlError
from sftrl_ext.training import chunked_log_probs
from sftrl_ext.training.chunked_log_probs import log_probs_in_chunks

torch = pytest.importorskip("torch")


def token_by_token(logits, labels):
    """verl's way: in float32 the difference to logsumexp, in bfloat16 the log-softmax, of each row alone."""
    rows = []
    for row, label in zip(logits, labels, strict=True):
        if logits.dtype == torch.bfloat16:
            rows.append(row.log_softmax(-1).gather(-1, label.unsqueeze(-1)).squeeze(-1))
        else:
            rows.append(row.gather(-1, label.unsqueeze(-1)).squeeze(-1) - row.logsumexp(-1))
    return torch.stack(rows)


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(chunked_log_probs, "CHUNK_ELEMENTS", 5 * 33)  # the last chunk is a shorter one
    module = ModuleType("m")
    log_probs_in_chunks(module)
    return module.logprobs_from_logits_v2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(17,), (1,), (7, 3)], ids=str)
def test_values_and_gradients_are_the_same_to_the_bit(in_chunks, shape, dtype):
    torch.manual_seed(0)
    logits = (5 * torch.randn(*shape, 33)).to(dtype)
    labels, weights = torch.randint(0, 33, shape), torch.randn(shape)
    results = []
    for function in (token_by_token, in_chunks):
        leaf = logits.clone().requires_grad_()
        values = function(leaf, labels)
        (values.float() * weights).sum().backward()
        results.append((values.detach(), leaf.grad))
    (values, gradients), (ours, our_gradients) = results
    assert ours.dtype == values.dtype and torch.equal(ours, values)
    assert torch.equal(our_gradients, gradients)


def test_no_labels_have_no_log_probabilities(in_chunks):
    assert in_chunks(torch.zeros(0, 33), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_verl_calls_it(monkeypatch):
    """Through verl's own entrance, in a process whose verl has loaded our plug-in."""
    pytest.importorskip("verl")
    import verl.utils.torch_functional as functional

    monkeypatch.setattr(functional, "FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE", False)
    logits, labels = torch.randn(40, 33), torch.randint(0, 33, (40,))
    monkeypatch.setattr(torch, "stack", None)  # a walk over the tokens stacks them
    values = functional.logprobs_from_logits(logits, labels)
    monkeypatch.undo()
    assert torch.equal(values, token_by_token(logits, labels))


def test_another_verl_is_refused(monkeypatch):
    pytest.importorskip("verl")
    monkeypatch.setattr(verl_version, "VERL_VERSION", "0.9.0")
    with pytest.raises(SftrlError, match=r"verl 0\.9\.0, but verl"):
        log_probs_in_chunks(ModuleType("m"))
