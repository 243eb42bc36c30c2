"""Coroutines share one engine; the event loop keeps running meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from sftrl_ext.backends.hf.batcher import Batcher
from sftrl_ext.backends.hf.engine import Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.errors import SftrlError
from tests.backends.tiny import assert_agrees, tiny_engine, tiny_llama


@pytest.fixture
def batcher():
    batcher = Batcher(tiny_engine())
    yield batcher
    batcher.close()


def test_concurrent_callers_get_their_own_responses_together(batcher):
    requests = [Request([2 + i, 3], Sampling(max_tokens=20, ignore_eos=True)) for i in range(16)]
    steps = 0
    step = batcher.engine.step

    def counted():
        nonlocal steps
        steps += 1
        return step()

    batcher.engine.step = counted

    async def all_of_them():
        return await asyncio.gather(*(batcher.generate(request) for request in requests))

    results = asyncio.run(all_of_them())
    assert [result is request.result for result, request in zip(results, requests, strict=True)] == [
        True
    ] * 16
    # 20 steps if all were there from the first; some may join a little later.
    assert steps < 60
    model = tiny_llama()
    for request in requests:
        assert_agrees(model, request)


def test_the_event_loop_is_not_blocked(batcher):
    engine_step = batcher.engine.step
    batcher.engine.step = lambda: (time.sleep(0.02), engine_step())[1]

    async def main():
        gaps, last = [], time.perf_counter()
        task = asyncio.create_task(batcher.generate(Request([2], Sampling(max_tokens=15, ignore_eos=True))))
        while not task.done():
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()
        return gaps

    gaps = asyncio.run(main())
    assert len(gaps) > 30


def test_a_refused_request_fails_alone(batcher):
    async def main():
        good = batcher.generate(Request([2], Sampling(max_tokens=3)))
        bad = batcher.generate(Request([]))
        return await asyncio.gather(good, bad, return_exceptions=True)

    good, bad = asyncio.run(main())
    assert good.token_ids and isinstance(bad, SftrlError)


def test_an_engine_that_breaks_tells_its_callers_and_goes_on(batcher):
    step = batcher.engine.step

    def broken():
        batcher.engine.step = step
        raise RuntimeError("broken")

    batcher.engine.step = broken
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(batcher.generate(Request([2])))
    assert asyncio.run(batcher.generate(Request([2], Sampling(max_tokens=2, ignore_eos=True)))).token_ids


def test_a_cancelled_caller_frees_its_slot_and_disturbs_no_one(batcher):
    # Room for one row: the second request waits in the engine's queue.
    batcher.engine.max_rows = 1
    endless, stays = (Request([2], Sampling(max_tokens=count, ignore_eos=True)) for count in (10**6, 9))
    waits = Request([3], Sampling(max_tokens=10**6, ignore_eos=True))

    async def main():
        first = asyncio.create_task(batcher.generate(endless))
        second = asyncio.create_task(batcher.generate(waits))
        third = asyncio.create_task(batcher.generate(stays))
        while batcher.engine.generated_count < 3:
            await asyncio.sleep(0.001)
        first.cancel(), second.cancel()
        return await asyncio.gather(first, second, third, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError) and isinstance(second, asyncio.CancelledError)
    assert len(third.token_ids) == 9
    assert len(endless.result.token_ids) < batcher.engine.context - 1 and not waits.result.token_ids
    assert not batcher.engine.busy
    assert_agrees(tiny_llama(), stays)


def test_abort_and_weights_between_requests(batcher):
    async def main():
        task = asyncio.create_task(batcher.generate(Request([2], Sampling(max_tokens=200, ignore_eos=True))))
        while batcher.engine.generated_count < 3:
            await asyncio.sleep(0.001)
        count = await asyncio.to_thread(batcher.abort)
        return count, await task

    count, result = asyncio.run(main())
    assert count == 1 and result.finish_reason == "aborted" and len(result.token_ids) >= 3
    with batcher.stopped() as engine:
        engine.load_weights(tiny_llama(seed=1).state_dict().items())
    request = Request([5, 6], Sampling(max_tokens=5))
    asyncio.run(batcher.generate(request))
    assert_agrees(tiny_llama(seed=1), request)
