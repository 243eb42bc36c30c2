"""The planner against measurements: stored runs, real passes on a CPU, and the authors' update."""

from statistics import median

import pytest

from sftrl_ext.experiments.planner.activations import (
    LogitPass,
    MicroBatch,
    forward_bytes,
    logit_bytes,
    saved_bytes,
)
from sftrl_ext.experiments.planner.architectures import Architecture
from sftrl_ext.experiments.planner.calibration import (
    CPU_ERROR,
    GPU_ERROR,
    authors_update,
    measured_step,
    stage_errors,
)
from sftrl_ext.paths import recipes_dir

WIDE = Architecture(256, 6, 8, 2, 1024, 512)
"""Activations outweigh logits."""
WORDY = Architecture(256, 4, 8, 8, 688, 16384)
"""Logits outweigh activations."""


def test_laptop_stages_are_within_the_stated_factor():
    errors = list(stage_errors(recipes_dir().parent / "results"))
    assert len(errors) >= 30
    times = [error.planned_s / error.wall_s for error in errors]
    assert all(1 / CPU_ERROR.time <= ratio <= CPU_ERROR.time for ratio in times)
    assert 0.9 <= median(times) <= 1.2
    for error in errors:
        ratio = error.planned_mib / error.peak_mib
        assert 0.75 <= ratio <= (2.0 if error.stage == "eval" else 1.32), error
    assert f"{len(errors)} stages" in CPU_ERROR.source


@pytest.mark.parametrize("rows", [2, 8])
@pytest.mark.parametrize(
    ("architecture", "dtype", "checkpointing"),
    [(WIDE, "float32", False), (WIDE, "float32", True), (WIDE, "bfloat16", False), (WORDY, "float32", False)],
)
def test_a_training_step_needs_what_is_planned(architecture, dtype, checkpointing, rows):
    pytest.importorskip("verl")
    measured = measured_step(architecture, rows, 64, True, checkpointing=checkpointing, dtype=dtype)
    size, batch = (4 if dtype == "float32" else 2), MicroBatch(64 * rows, 64 * rows, rows)
    planned = saved_bytes(architecture, batch, size, checkpointing)
    planned += logit_bytes(batch, architecture.vocab, size, LogitPass(training=True, flash=False))
    assert 0.95 <= planned / measured <= 1.25


@pytest.mark.parametrize("entropy", ["none", "chunked", "full"])
@pytest.mark.parametrize("architecture", [WIDE, WORDY])
def test_a_pass_without_gradients_needs_what_is_planned(architecture, entropy):
    pytest.importorskip("verl")
    measured = measured_step(architecture, 4, 64, False, entropy)
    batch = MicroBatch(256, 256, 4)
    logits = logit_bytes(
        batch, architecture.vocab, 4, LogitPass(training=False, entropy=entropy, flash=False)
    )
    planned = max(logits, forward_bytes(architecture, batch, 4))
    assert 0.9 <= planned / measured <= 1.1


def test_entropy_in_chunks_needs_less_than_in_one_piece():
    batch = MicroBatch(16_384, 16_384, 16)
    chunked, whole = (
        logit_bytes(batch, 128_256, 2, LogitPass(training=False, entropy=entropy))
        for entropy in ("chunked", "full")
    )
    assert chunked < 0.5 * whole


def test_the_authors_update_takes_what_they_say():
    """One to two hours on eight cards, without a cache; with one, minutes."""
    hours = authors_update(cache=False).hours
    assert 1 / GPU_ERROR.time <= hours / 1.5 <= GPU_ERROR.time
    assert 0.5 <= hours / 1.5 <= 2
    assert authors_update(cache=True).hours < 0.25 * hours
