"""Bias test of credit estimators: exact references, and estimators that are known to be biased or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

from sftrl_ext.training.credit import leave_one_out_advantages, reward_to_go, turn_gae
from sftrl_ext.training.credit_bias import StoppingTask, expected_gradient, sample_gradients


def loo(rewards, alive, group):
    return leave_one_out_advantages(rewards, alive, group, 1.0)


def grpo(rewards, alive, group):
    return leave_one_out_advantages(rewards, alive, group, 1.0, divide_by_std=True)


def per_turn_index(rewards, alive, group):
    """Rewards centred among the episodes that played a turn, summed from each turn on."""
    mean = (rewards * alive).sum(0) / alive.sum(0).clamp(min=1)
    return reward_to_go((rewards - mean) * alive, alive, 1.0)


def test_the_exact_gradient_is_the_gradient_of_the_expected_return():
    logits = torch.tensor(StoppingTask.logits, dtype=torch.float64, requires_grad=True)
    first, second, third = torch.sigmoid(logits)
    last = 1.5 + third * 4.0 + (1 - third) * -1.0
    value = first * 1.0 + (1 - first) * (0.5 + second * 2.0 + (1 - second) * last)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.allclose(gradient, StoppingTask().gradient())
    assert value.item() == pytest.approx(float(StoppingTask().values()[0]))


def test_a_sample_mean_is_the_enumerated_expectation():
    sampled = sample_gradients(per_turn_index, size=3, groups=1, batches=1000)
    error = sampled.samples.std(dim=0) / 1000**0.5
    exact = expected_gradient(per_turn_index, 3)
    assert bool(((sampled.samples.mean(dim=0) - exact).abs() < 4 * error).all())


def test_estimators_without_bias_pass():
    assert sample_gradients(loo, batches=500).z_score < 4
    assert sample_gradients(grpo, batches=500).direction_z_score < 4


def test_a_scaled_gradient_keeps_its_direction():
    doubled = sample_gradients(lambda *batch: 2 * loo(*batch), batches=500)
    assert doubled.direction_z_score < 4 < doubled.z_score


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_gae_with_an_exact_critic_is_exact(lam):
    task = StoppingTask(gamma=0.9)

    def gae(rewards, alive, group):
        return turn_gae(rewards, task.values().expand_as(rewards), alive, task.gamma, lam)[0]

    assert torch.allclose(expected_gradient(gae, 1, task=task), task.gradient())


def test_a_biased_estimator_fails():
    biased = sample_gradients(per_turn_index, batches=500)
    assert biased.z_score > 8 and biased.direction_z_score > 8
    assert float(biased.bias[0]) > 0  # stopping at once is pushed


def test_a_seed_gives_the_same_batches():
    samples = [sample_gradients(loo, batches=20, seed=seed).samples for seed in (1, 1, 2)]
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])


def test_credit_needs_torch_alone():
    code = (
        "import sys, sftrl_ext.training.credit_bias;"
        "print(*sorted({'verl', 'ray', 'transformers', 'sftrl_ext.envs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
