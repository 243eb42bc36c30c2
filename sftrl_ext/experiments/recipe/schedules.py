"""Learning-rate schedules of a training command, as overrides of verl's FSDP optimizer config.

verl's constant schedule has the rate 0 at the first step of a warm-up, and its cosine reaches 0 at the last
step when it counts from one (``zero_indexed_step=false``). A cosine of zero cycles is a constant, so both are
written as verl's cosine, counted from one: step k of w warm-up steps has the rate ``lr * k / w``.
"""

from __future__ import annotations

from sftrl_ext.errors import SftrlError, unknown_name

SCHEDULES = ("constant", "cosine")
FINAL_RATE = 1e-9
"""Rate at the end of RL's decay, of the authors' RL configs (``end_lr``)."""


def sft_schedule(schedule: str, steps: int, warmup_ratio: float) -> list[str]:
    """Overrides of ``optim`` for SFT, whose scheduler advances once per optimizer step.

    A cosine ends one step after the last, so that no step has the rate 0.

    Args:
        schedule: One of `SCHEDULES`.
        steps: Optimizer steps.
        warmup_ratio: Share of the steps over which the rate rises.

    Raises:
        SftrlError: if the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    warmup = int(warmup_ratio * steps)
    cycles = 0.5 * (steps - warmup) / (steps - warmup + 1) if schedule == "cosine" else 0.0
    return _overrides("optim", warmup=warmup, cycles=cycles)


def rl_schedule(optimizer: str, lr: float, updates: int, warmup: int, decay_updates: int | None) -> list[str]:
    """Overrides of an actor's or a critic's optimizer, whose scheduler advances once per update.

    Args:
        optimizer: Config key of the optimizer.
        lr: Its highest learning rate.
        updates: Updates of the run.
        warmup: Updates over which the rate rises; update 1 has ``lr / warmup``.
        decay_updates: Updates over which a cosine falls from ``lr`` to `FINAL_RATE`, starting after update 1;
            None: constant.

    Raises:
        SftrlError: if a warm-up and a decay are both requested, or the decay ends before the run.
    """
    if decay_updates is None:
        return _overrides(optimizer, warmup=warmup, cycles=0.0)
    if warmup or decay_updates < updates:
        raise SftrlError(
            f"budget.rl.decay_updates: {decay_updates} with {updates} updates and warmup {warmup}; "
            "expected at least as many as updates, and no warm-up."
        )
    # verl's progress is a share of the run: this many cycles of it are half a cycle of the decay.
    cycles = 0.5 * updates / decay_updates
    ratio = FINAL_RATE / lr
    decay = _overrides(optimizer, warmup=0, cycles=cycles, from_one=False)
    return [*decay, f"{optimizer}.min_lr_ratio={ratio:g}"]


def _overrides(optimizer: str, *, warmup: int, cycles: float, from_one: bool = True) -> list[str]:
    return [
        f"{optimizer}.lr_scheduler_type=cosine",
        f"{optimizer}.num_cycles={cycles:.8g}",
        f"{optimizer}.zero_indexed_step={str(not from_one).lower()}",
        f"{optimizer}.lr_warmup_steps={warmup}",
    ]
