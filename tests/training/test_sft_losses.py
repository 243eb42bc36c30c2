"""Losses of SFT: each is its formula, and the engine that a stage's variables select trains on it."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

import torch

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.engine import engine_class, packed_logits, shifted_mask
from sftrl_ext.training.engine_settings import LOSSES, TrainEngineSettings, engine_env
from sftrl_ext.training.sft_losses import batch_loss, token_kl
from tests.backends.tiny import tiny_llama

ROWS = [[5, 6, 7, 8, 9], [5, 10, 11]]
LEARNED = [[0, 0, 1, 0, 1], [0, 1, 1]]
TOKENS = 4


def formula(loss, coef=0.0, start=None):
    """Mean loss of the learned tokens, written out token by token, and its gradient."""
    model = tiny_llama()
    total = 0.0
    for row, learned in zip(ROWS, LEARNED, strict=True):
        logits = model(torch.tensor([row])).logits[0]
        anchor = None if start is None else start(torch.tensor([row])).logits[0].detach()
        for place in range(1, len(row)):
            if not learned[place]:
                continue
            p = logits[place - 1].softmax(-1)
            y = p[row[place]]
            weight = y.item() if loss.startswith("dft") else 1.0
            total = total - weight * y.log()
            if anchor is not None:
                q = anchor[place - 1].softmax(-1)
                total = total + coef * sum(qi * (qi.log() - pi.log()) for qi, pi in zip(q, p, strict=True))
    (total / TOKENS).backward()
    return (total / TOKENS).item(), model.lm_head.weight.grad


class PlainEngine:
    """What our engine needs of verl's, with its calls in verl's order, on rows packed or padded."""

    ulysses_sequence_parallel_size = 1
    packed = False

    def __init__(self):
        self.model_config = {}
        self.seed = 0

    def _build_module(self):
        return tiny_llama(seed=self.seed)

    def _build_fsdp_module(self, module):
        return module

    def initialize(self):
        self.module = self._build_fsdp_module(self._build_module())

    def prepare_model_inputs(self, batch):
        width = max(map(len, ROWS))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}, {}

    def prepare_model_outputs(self, output, output_args, batch, loss_function):
        assert not output_args
        logits = torch.cat([one[: len(row)] for one, row in zip(output.logits, ROWS, strict=True)])
        following = torch.roll(batch["input_ids"].values(), -1)
        log_probs = logits.log_softmax(-1).gather(1, following[:, None])[:, 0]
        return {"log_probs": torch.nested.nested_tensor_from_jagged(log_probs, batch["input_ids"].offsets())}

    def forward_step(self, batch, loss_function, forward_only):
        inputs, output_args = self.prepare_model_inputs(batch)
        output = self.prepare_model_outputs(self.module(**inputs), output_args, batch, loss_function)
        loss, metrics = loss_function(model_output=output, data=batch, dp_group=None)
        assert set(output) == {"log_probs"}
        return loss, {"metrics": metrics}

    def forward_backward_batch(self, data, loss_function, forward_only=False):
        found = [self.forward_step(data, loss_function, forward_only)[1]["metrics"] for _ in range(2)]
        return {"metrics": {name: [one[name] for one in found] for name in found[0]}}

    def get_data_parallel_size(self):
        return 1


def batch():
    nested = [
        torch.nested.nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)
        for rows in (ROWS, LEARNED)
    ]
    return {"input_ids": nested[0], "loss_mask": nested[1], "batch_num_tokens": TOKENS, "dp_size": 1}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_engine_trains_on_the_loss_its_variables_name(loss, monkeypatch):
    for name, value in engine_env(None, loss, 0.3 if loss in ("kl", "dft_kl") else None).items():
        monkeypatch.setenv(name, value)
    engine = engine_class(PlainEngine)()
    engine.seed = 1
    engine.initialize()
    start, engine.module = engine.module, tiny_llama()  # training has moved away from the start

    def own(model_output, data, dp_group=None):
        kept = shifted_mask(data["loss_mask"])
        return -(model_output["log_probs"].values()[kept]).sum() / data["batch_num_tokens"], {"of": "verl"}

    found, output = engine.forward_step(batch(), own, forward_only=False)
    found.backward()
    anchored = loss in ("kl", "dft_kl")
    expected, gradient = formula(loss, 0.3, start if anchored else None)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(engine.module.lm_head.weight.grad, gradient, atol=1e-5)
    metrics = output["metrics"]
    assert set(metrics) == ({"of"} if loss == "nll" else {"train/nll", *(["train/kl_start"] * anchored)})
    if loss != "nll":
        assert metrics["train/nll"] == pytest.approx(formula("nll")[0], rel=1e-5)
    if anchored:
        assert metrics["train/kl_start"] > 0.01
        logged = engine.forward_backward_batch(batch(), own)["metrics"]
        assert logged == {name: pytest.approx(2 * value) for name, value in metrics.items()}
        assert all(not p.requires_grad for p in engine.start_module.parameters())


def test_dft_pulls_less_at_tokens_that_are_unlikely():
    log_prob = torch.tensor([-0.1, -4.0], requires_grad=True)
    LOSSES["dft"].term(log_prob).sum().backward()
    assert log_prob.grad.tolist() == pytest.approx([-0.9048374, -0.0183156], rel=1e-5)


def test_the_divergence_is_of_the_start_from_the_model():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    expected = 0.25 * torch.tensor(0.5).log() + 0.5 * torch.tensor(2.0).log()
    assert token_kl(p.log(), q.log() + 3.0).item() == pytest.approx(expected.item())
    assert token_kl(p.log(), p.log()).item() == pytest.approx(0.0, abs=1e-7)


def test_the_anchor_has_its_weight():
    log_prob, kl = torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 1.5])
    assert batch_loss(log_prob, TrainEngineSettings(loss="kl", kl_coef=0.1), kl).item() == pytest.approx(3.2)
    assert batch_loss(log_prob, TrainEngineSettings()).item() == pytest.approx(3.0)


def test_logits_of_packed_and_padded_rows_are_the_same():
    offsets = torch.tensor([0, 3, 5])
    rows = torch.arange(10.0).reshape(5, 2)
    padded = torch.full((2, 3, 2), -1.0)
    padded[0], padded[1, :2] = rows[:3], rows[3:]
    assert packed_logits(padded, offsets).equal(rows)
    assert packed_logits(torch.cat([rows, -torch.ones(2, 2)])[None], offsets).equal(rows)


def test_what_is_unknown_is_named():
    with pytest.raises(SftrlError, match="Did you mean 'dft'"):
        engine_env(loss="dtf")
    with pytest.raises(SftrlError, match="kl_coef"):
        engine_env(loss="kl", kl_coef=-1)
    assert engine_env() == {}  # verl's own engine


def test_an_anchor_needs_logits(monkeypatch):
    for name, value in engine_env(loss="kl").items():
        monkeypatch.setenv(name, value)
    engine = engine_class(PlainEngine)()
    engine.model_config = {"use_fused_kernels": True}
    with pytest.raises(SftrlError, match="fused kernels"):
        engine.initialize()
    engine = engine_class(PlainEngine)()
    engine.ulysses_sequence_parallel_size = 2
    with pytest.raises(SftrlError, match="sequence parallelism"):
        engine.initialize()
