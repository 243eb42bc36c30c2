"""Slices of work in an event loop that other callbacks share."""

from __future__ import annotations

import asyncio
import time

from sftrl_ext.rollout.pacing import TimeSlices


def test_timers_run_between_slices_and_callers_pass_in_order():
    done: list[str] = []

    async def work(slices: TimeSlices, name: str) -> None:
        await slices.wait()
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        done.append(name)

    async def go() -> None:
        slices = TimeSlices(0.001)
        asyncio.get_running_loop().call_later(0.001, done.append, "timer")
        await asyncio.gather(*(work(slices, str(number)) for number in range(20)))

    asyncio.run(go())
    # Without slices the timer would be last.
    assert done.index("timer") < 10
    assert [name for name in done if name != "timer"] == [str(number) for number in range(20)]
