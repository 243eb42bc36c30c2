"""Learning rates of every step, from verl's own scheduler builder run on our overrides."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schedules import rl_schedule, sft_schedule

LR = 1e-4


def rates(overrides, steps, lr=LR):
    """The learning rate of each optimizer step, or update, as verl's FSDP engine schedules it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    from verl.workers.config import FSDPOptimizerConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    values = {key.rpartition(".")[2]: value for key, _, value in (word.partition("=") for word in overrides)}
    kinds = {"lr_scheduler_type": str, "zero_indexed_step": lambda text: text == "true"}
    kinds |= {"num_cycles": float, "min_lr_ratio": float, "lr_warmup_steps": int}
    config = FSDPOptimizerConfig(
        lr=lr, total_training_steps=steps, **{key: kinds[key](value) for key, value in values.items()}
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = FSDPEngine._build_lr_scheduler(SimpleNamespace(optimizer_config=config, rank=1), optimizer)
    out = []
    for _ in range(steps):
        out.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return out


def test_a_warm_up_begins_above_zero_and_ends_at_the_rate():
    for warmup in (1, 2, 5):
        found = rates(rl_schedule("actor_rollout_ref.actor.optim", LR, 8, warmup, None), 8)
        assert found == pytest.approx([LR * min(1, step / warmup) for step in range(1, 9)])
    assert rates(rl_schedule("critic.optim", LR, 8, 0, None), 8) == pytest.approx([LR] * 8)
    assert rates(sft_schedule("constant", 20, 0.1), 20)[:3] == pytest.approx([LR / 2, LR, LR])


@pytest.mark.parametrize(("steps", "ratio"), [(40, 0.1), (7, 0.0), (1, 0.5), (330, 0.1)])
def test_a_cosine_has_no_step_at_rate_zero(steps, ratio):
    found = rates(sft_schedule("cosine", steps, ratio), steps)
    warmup = int(ratio * steps)
    assert min(found) > 0 and max(found) <= LR
    assert found[:warmup] == pytest.approx([LR * step / warmup for step in range(1, warmup + 1)])
    falling = found[max(warmup - 1, 0) :]
    assert falling == sorted(falling, reverse=True)
    ends = steps - warmup + 1
    assert found[-1] == pytest.approx(LR * 0.5 * (1 + math.cos(math.pi * (ends - 1) / ends)), rel=1e-3)


def test_the_decay_of_the_paper_is_the_authors_annealing():
    torch = pytest.importorskip("torch")
    for updates, whole, lr in ((20, 100, 1e-6), (15, 20, 1e-7)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=whole, eta_min=1e-9)
        expected = []
        for _ in range(updates):
            expected.append(annealing.get_last_lr()[0])
            optimizer.step()
            annealing.step()
        found = rates(rl_schedule("critic.optim", lr, updates, 0, whole), updates, lr)
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_decay_must_last_as_long_as_the_run():
    with pytest.raises(SftrlError, match="decay_updates: 10 with 20 updates"):
        rl_schedule("critic.optim", LR, 20, 0, 10)
    with pytest.raises(SftrlError, match="warmup 5"):
        rl_schedule("critic.optim", LR, 20, 5, 100)
    with pytest.raises(SftrlError, match="Did you mean 'cosine'"):
        sft_schedule("cosin", 20, 0.1)
